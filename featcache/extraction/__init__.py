"""Extraction: compute the embeddings that a store lacks, and join all of them to the data set.

The only package that combines data, backbones, engines and stores. `extract` returns `Features`,
`explain` returns the plan without computing anything, and `recheck` recomputes a sample of the
stored rows. Called by `bundle`, `cli` and users.
"""
