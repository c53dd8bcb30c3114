"""Open shards, a few at a time, each checked to the last byte before its first row is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path

from .hdf5 import ShardReader, corrupt
from .shards import check_bytes

MOST = 64


class OpenShards:
    """The shards of a folder that are open for reading, the least used closed first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._readers: OrderedDict[str, ShardReader] = OrderedDict()

    def get(self, name: str) -> ShardReader:
        """Return an open shard whose SHA-256 was found to be the one in its name.

        Raises
        ------
        StoreCorrupt
            If its bytes are not those that were committed.
        FileNotFoundError
            If it is gone: merged into a larger one, perhaps.
        """
        reader = self._readers.get(name)
        if reader is None:
            damage = check_bytes(self._folder / name)
            if damage is not None:
                raise corrupt(self._folder / name, damage.reason)
            reader = self._readers[name] = ShardReader(self._folder / name)
            while len(self._readers) > MOST:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(name)
        return reader

    def keep(self, names: Collection[str]) -> None:
        """Close all but these."""
        for name in set(self._readers) - set(names):
            self._readers.pop(name).close()
