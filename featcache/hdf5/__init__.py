"""HDF5 files of ours, as bytes and as rows, and a look at others'. The only door to h5py.

Nothing is read from a file before its structure is checked: hard links only, no external
storage, no virtual data sets, known types and filters, shapes that agree and fit the file. What
nobody vouches for is parsed in a child process; see `featcache.hdf5.sandbox`.
"""
