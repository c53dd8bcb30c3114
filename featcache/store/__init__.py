"""The store: immutable shards of rows in a folder, one folder per spec.

Appending, reading, the manifest, leases, verification, repair, merging and packing. It knows
specs and ids, but neither networks nor images. Called by `extraction`, `gc` and `cli`.
"""
