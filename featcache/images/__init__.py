"""Decoding of image files: formats, limits, cropping and resizing.

A file's bytes become one RGB array of uint8, the same on every machine, or a `BadImage` with
the reason. `views` defines augmented views of an image: which there are, their keys and their
pixels. Used by `data`, `datasets`, `backbones` (for the decode version) and `extraction`.
"""
