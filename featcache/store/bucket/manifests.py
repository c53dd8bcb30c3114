"""The manifests of a store in an object store: one object per generation, never replaced.

A generation is created only if there is none of its number, so that of two writers who extend the
same one, the second sees that and begins again. The listing of a server may lag behind: readers ask
for further generations until there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...backbones.spec import BackboneSpec
from ...errors import StoreCorrupt, StoreError, StoreMismatch
from ..manifest import MAX_BYTES, NAME, Manifest, parse_manifest
from .objects import Bucket

_NAME = re.compile(r"MANIFEST-([0-9]{10})\.json")
_ATTEMPTS = 50


def store_prefix(name: str) -> str:
    """Return the common beginning of the names of a store's objects."""
    return f"stores/{name}"


def latest_manifest(bucket: Bucket, name: str, mirror: Path) -> Manifest | None:
    """Return the newest manifest of a store; None if it has none.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Name of the store.
    mirror : Path
        Folder for the local copies of its files, of the store's name.

    Raises
    ------
    StoreCorrupt, StoreFormatError
        If it is damaged, or a newer version wrote it.
    StoreError
        If it cannot be read.
    """
    listed = [_NAME.fullmatch(found) for found in bucket.objects(store_prefix(name))]
    number = max((int(match[1]) for match in listed if match), default=0)
    data = bucket.read(_key(name, number), MAX_BYTES) if number else None
    while (newer := bucket.read(_key(name, number + 1), MAX_BYTES)) is not None:
        number, data = number + 1, newer
    if data is None:
        return None
    try:
        manifest = parse_manifest(mirror / NAME, data)
    except StoreCorrupt as error:
        raise StoreCorrupt(
            f"{bucket.url}/{_key(name, number)} cannot be used: {error.reason}. Run the same "
            "command again, in case the answer was cut off. If it is damaged there, remove the "
            "object: the manifest before it is used then, and `featcache push` lists the rest.",
            path=bucket.url, reason=error.reason,
        ) from error  # fmt: skip
    return replace(manifest, generation=number)


def add_shards(
    bucket: Bucket,
    name: str,
    mirror: Path,
    shards: Mapping[str, int],
    first: Manifest,
) -> Manifest:
    """Add shards to the list of a store, whose objects exist already.

    Parameters
    ----------
    bucket, name, mirror
        As for `latest_manifest`.
    shards : mapping of str to int
        Numbers of rows by name.
    first : Manifest
        The manifest to begin with, if there is none.

    Returns
    -------
    Manifest
        One that lists them: from now on, readers find their rows.

    Raises
    ------
    StoreMismatch
        If the store has another spec or width.
    StoreError
        If other writers were first in every attempt.
    StoreWriteError
        If the server refuses.
    """
    for _ in range(_ATTEMPTS):
        current = latest_manifest(bucket, name, mirror)
        check_same(current, first.spec, first.width, bucket)
        base = replace(first, generation=0, shards={}) if current is None else current
        if shards.items() <= base.shards.items():
            return base  # also if the answer to our own request was lost
        number = base.generation + 1
        manifest = replace(base, generation=number, shards={**base.shards, **shards})
        if bucket.create(_key(name, number), manifest.encode()):
            return manifest
    raise StoreError(
        f"{bucket.url} was changed by other writers during each of {_ATTEMPTS} attempts to list "
        "new rows. Run the same command again.",
        path=bucket.url,
    )


def check_same(manifest: Manifest | None, spec: BackboneSpec, width: int, bucket: Bucket) -> None:
    """Raise `StoreMismatch` unless a manifest is of a spec and a width."""
    if manifest is not None and (manifest.spec != spec or manifest.width != width):
        raise StoreMismatch(
            f"The store {spec.folder} in {bucket.url} holds rows of another spec or width "
            f"(key {manifest.spec.key[:16]}, width {manifest.width}) than those here (key "
            f"{spec.key[:16]}, width {width}).",
            path=bucket.url,
            stored=manifest.spec,
            requested=spec,
        )


def _key(name: str, number: int) -> str:
    return f"{store_prefix(name)}/MANIFEST-{number:010d}.json"
