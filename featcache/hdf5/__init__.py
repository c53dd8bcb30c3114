"""HDF5 files as bytes: shards and packed stores of ours, and weights from elsewhere.

The only room that imports h5py. It encodes and reads what is written under a digest, and has
files that nobody vouches for parsed by a child process with limits. Called by `store` and
`backbones`; it imports `_io` alone.
"""
