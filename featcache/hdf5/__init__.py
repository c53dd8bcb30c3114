"""HDF5 files: shards, packed stores, and weights from other sources.

The only package that imports h5py. It encodes and reads files whose digest is known, and lets a
child process with limits parse untrusted files. Used by `store` and `backbones`; imports only
`_io`.
"""
