"""Engines that run a backbone: Keras on any of its backends, or OpenVINO.

An engine computes embeddings of pixels that agree with those of Keras. `select` chooses the
engine, and a micro-batch size that is fast and fits the memory. Used by `extraction`.
"""
