"""The store: immutable shards of embeddings in a folder, one folder per spec.

Appending, reading, the manifest, leases, verification, repair, merging and packing. Works with
specs and ids, not with networks or images. Used by `extraction`, `gc` and `cli`.
"""
