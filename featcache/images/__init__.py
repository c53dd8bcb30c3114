"""Image files as pixels: which formats are decoded, within which limits, and how.

A file's bytes become one RGB array of uint8, the same on every machine, or a `BadImage` with
the reason. Called by `data`, `datasets`, `backbones` (for the decode version) and `extraction`.
"""
