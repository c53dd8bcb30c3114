"""Lookup of the metadata of a shard: in its sidecar, or in the shard itself."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .._io.logs import get_logger
from .._io.wording import format_count
from ..errors import StoreCorrupt, StoreFormatError, StoreMismatch
from ..hdf5.sandbox import inspect_shard
from ..hdf5.shard_metadata import ShardMetadata, check_metadata, read_metadata, write_metadata
from ..hdf5.shard_name import Damage, rows_in_name
from .manifest import Manifest
from .shard_reader import ShardReader

log = get_logger(__name__)


class ShardLookup:
    """Finds the metadata of the shards in a folder.

    Parameters
    ----------
    folder : Path
    reader : ShardReader
        Verifies a shard before it is inspected.
    write_sidecars : bool
        Whether missing and damaged sidecars are written again.
    """

    def __init__(self, folder: Path, reader: ShardReader, *, write_sidecars: bool) -> None:
        self._folder = folder
        self._reader = reader
        self._write_sidecars = write_sidecars

    def find(self, name: str, manifest: Manifest) -> ShardMetadata | Damage | None:
        """Return the metadata of a shard, or its damage; None if the shard was removed."""
        rows = rows_in_name(name) or 0
        try:
            return self._read_sidecar(name, manifest) or self._inspect_metadata(name, manifest)
        except FileNotFoundError:
            if os.path.lexists(self._folder / name):
                return Damage(name, rows, "it is a link to nothing")
            return None
        except (StoreCorrupt, StoreMismatch, StoreFormatError) as error:
            reason = error.reason or str(error)
            log.warning(
                "%s: skipped %s: %s. `featcache repair %s` saves the valid rows.",
                name, format_count(rows, "row"), reason, self._folder,
            )  # fmt: skip
            return Damage(name, rows, reason)

    def _read_sidecar(self, name: str, manifest: Manifest) -> ShardMetadata | None:
        """Return the metadata in the shard's sidecar, if it belongs to a file of this size."""
        known = read_metadata(self._folder / name)
        if known is None or known[2] != (self._folder / name).stat().st_size:
            return None
        with contextlib.suppress(StoreMismatch, StoreCorrupt):
            check_metadata(known[0], name, manifest.spec.components(), manifest.width)
            return known[0]
        return None

    def _inspect_metadata(self, name: str, manifest: Manifest) -> ShardMetadata:
        """Verify and inspect a shard, and write its missing or damaged sidecar."""
        path = self._folder / name
        self._reader.check([name])
        metadata = inspect_shard(path)
        check_metadata(metadata, name, manifest.spec.components(), manifest.width)
        if self._write_sidecars:
            rows = self._reader.read_all(name, metadata.layout, len(metadata.views))
            write_metadata(path, path.stat().st_size, metadata, rows)
        return metadata
