"""HDF5 files of ours, as bytes and as rows, and a look at others'. The only door to h5py.

Nothing is read from a file before its structure is checked: hard links only, no external
storage, no virtual data sets, known types and filters, shapes that agree and fit the file.
"""

from .checked import FORMAT_VERSION
from .packfile import PackReader, write_pack
from .shardfile import ShardReader, encode_shard
from .weightsfile import SavedLayer, foreign_reason, saved_layers

__all__ = [
    "FORMAT_VERSION", "PackReader", "SavedLayer", "ShardReader", "encode_shard", "foreign_reason",
    "saved_layers", "write_pack",
]  # fmt: skip
