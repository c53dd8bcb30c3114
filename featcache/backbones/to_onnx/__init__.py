"""Backbones as ONNX graphs: what `featcache.backbones.onnx` reads, written.

`writer` collects nodes and weights, `network` walks through a Keras model, and one function per
kind of layer (`convolutions`, `vectors`, `activations`, `shapes`) writes it. `file` adds input,
preprocessing and checks. Used by `featcache.bundle`.
"""
