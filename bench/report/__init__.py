"""Results as one self-contained HTML page, with figures, photos, tables and raw data.

Draws and formats what `bench.evaluation` and `bench.analysis` return, and computes no metric of its
own. Used by ``python -m bench`` and users.
"""
