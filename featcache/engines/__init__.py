"""Engines that run a backbone: Keras on any of its backends, ONNX Runtime, or OpenVINO.

An engine computes embeddings of pixels that agree with those of Keras, or of ONNX Runtime for an
ONNX network. `select` chooses the engine, and a micro-batch size that is fast and fits the memory.
Used by `extraction`.
"""
