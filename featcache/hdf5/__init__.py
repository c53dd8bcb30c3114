"""HDF5 files of ours, as bytes and as rows, and a look at others'. The only door to h5py.

Nothing is read from a file before its structure is checked: hard links only, no external
storage, no virtual data sets, known types and filters, shapes that agree and fit the file.
"""

from .checked import FORMAT_VERSION
from .packfile import Column, PackLayout
from .shardfile import ShardReader, encode_shard
from .weightsfile import foreign_reason

__all__ = [
    "FORMAT_VERSION", "Column", "PackLayout", "ShardReader", "encode_shard", "foreign_reason",
]  # fmt: skip
