"""Bundles: a trained head and the spec of its backbone in one file, for prediction elsewhere.

A head is stored as plain arrays (`Classifier`), so that reading it needs neither pickle nor the
library that trained it. Called by `cli` and users.
"""
