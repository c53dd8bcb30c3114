"""HDF5 files of ours, as bytes and as rows, and a look at others'. The only door to h5py.

Nothing is read from a file before its structure is checked: hard links only, no external
storage, no virtual data sets, known types and filters, shapes that agree and fit the file. What
nobody vouches for is parsed in a child process; see `featcache.hdf5.sandbox`.
"""

from .checked import FORMAT_VERSION
from .packfile import Column, PackLayout
from .sandbox import foreign_reason, inspect_shard
from .savedlayers import SavedLayer, saved_layers
from .shardfile import ShardReader, encode_shard

__all__ = [
    "FORMAT_VERSION", "Column", "PackLayout", "SavedLayer", "ShardReader", "encode_shard",
    "foreign_reason", "inspect_shard", "saved_layers",
]  # fmt: skip
