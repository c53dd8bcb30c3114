"""Quarantine lists of a store in an object store: its images that cannot be decoded."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path

from ..._io.atomic import make_folder, write_atomic
from .. import quarantine
from .objects import Bucket


def add_failures(bucket: Bucket, name: str, reasons: Mapping[str, str]) -> None:
    """Create a list of image id -> reason.

    Raises
    ------
    StoreWriteError
        If the server refuses.
    """
    data = quarantine.encode(reasons)
    key = quarantine.make_name(f"{uuid.uuid4().hex[:8]}-{len(reasons):06d}", data)
    bucket.create(f"{_folder(name)}/{key}", data)


def read_failures(bucket: Bucket, name: str, mirror: Path) -> dict[str, str]:
    """Return image id -> reason, from all lists; their copies are kept in a folder here."""
    names = [one for one in bucket.objects(_folder(name)) if quarantine.is_name(one)]
    for one in names:
        path = mirror / one
        if not path.is_file() or not quarantine.is_intact(path):
            data = bucket.read(f"{_folder(name)}/{one}", quarantine.MAX_BYTES) or b""
            make_folder(mirror, private=True)  # another process may have removed it
            write_atomic(path, data, description="the quarantine list", durable=False)
    return quarantine.read(mirror, names)


def remove_failures(bucket: Bucket, name: str) -> None:
    """Remove all lists of a store whose rows are removed, so that its images are tried again.

    Raises
    ------
    StoreError, StoreWriteError
        If the server cannot be reached, or refuses.
    """
    for one in bucket.objects(_folder(name)):
        if quarantine.is_name(one):
            bucket.remove(f"{_folder(name)}/{one}")


def _folder(name: str) -> str:
    # Not below that of the store: of an empty folder, s3fs lists the one above, with all shards.
    return f"quarantine/{name}"
