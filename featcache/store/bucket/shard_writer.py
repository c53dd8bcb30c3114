"""Creation of the objects of shards, each under a name that no earlier object had.

Garbage collection removes objects that are not listed. If a name were used again, the new object
could be removed in place of the old one, by a process that was suspended in between.
"""

from __future__ import annotations

import hashlib
import uuid
from itertools import count

from ...errors import StoreWriteError
from ...hdf5.row_dtype import Rows
from ...hdf5.shard_metadata import METADATA_SUFFIX, ShardMetadata, metadata_bytes
from ...hdf5.shard_name import make_shard_name
from .manifests import store_prefix
from .objects import Bucket


class ShardWriter:
    """Creates shards of a store in an object store, and their sidecars. It does not list them.

    Threads may share it.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    """

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket, self._prefix = bucket, store_prefix(name)
        self._worker = uuid.uuid4().hex[:8]
        self._sequence = count(1)

    def create(self, data: bytes, rows: Rows, metadata: ShardMetadata, beginning: str = "") -> str:
        """Create the objects of a shard.

        Parameters
        ----------
        data : bytes
            The shard's file, as `encode_shard` returns it.
        rows : ndarray (n, width)
            The rows in it, as they are stored.
        metadata : ShardMetadata
        beginning : str
            Of the shard's name, at most 6 hexadecimal digits.

        Returns
        -------
        str
            Name of the shard, for `change_shards`.

        Raises
        ------
        StoreWriteError
            If the server refuses.
        """
        digest = hashlib.sha256(data).hexdigest()
        worker = beginning + self._worker[len(beginning) :]
        shard = make_shard_name(worker, next(self._sequence), len(rows), digest)
        self._create(shard, data)
        self._create(shard + METADATA_SUFFIX, metadata_bytes(shard, len(data), metadata, rows))
        return shard

    def _create(self, name: str, data: bytes) -> None:
        key = f"{self._prefix}/{name}"
        if not self._bucket.create(key, data):
            raise StoreWriteError(
                f"{self._bucket.url}/{key} exists, but does not hold what its name says. Remove "
                "it, and run the same command again.",
                path=self._bucket.url,
            )
