"""How a backbone is run: by Keras on any of its backends, or by OpenVINO.

An engine takes pixels and returns embeddings that agree with Keras' own. `select` chooses one,
and a micro-batch size that is quick and fits the memory. Called by `extraction`.
"""
