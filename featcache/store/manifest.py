"""The MANIFEST of a store: its spec, its shards, its own checksum.

The folder's shards are the truth; the manifest makes a lost shard noticed, and lets a
store be described and compared without opening a shard.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._io.atomic import write_atomic
from .._io.logs import get_logger
from .._io.own_files import check_integer, read_own_file
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec, can_be_in
from ..errors import FeatcacheError, StoreCorrupt, StoreFormatError
from ..hdf5.checked_file import FORMAT_VERSION
from ..hdf5.shard_name import rows_in_name

log = get_logger(__name__)

NAME = "MANIFEST.json"
_MOST = 2**31 - 1
_MOST_GENERATIONS = 2**63
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Manifest:
    """What a MANIFEST holds.

    Attributes
    ----------
    spec : BackboneSpec
        Under which every row was computed.
    width : int
        Length of an embedding.
    generation : int
        One more at each replacement.
    shards : mapping of str to int
        Rows of each shard known when it was written; later shards may lie beside them.
    metadata : mapping of str to str
        What people called it: weights' origin, preprocessing rule.
    """

    spec: BackboneSpec
    width: int
    generation: int = 0
    shards: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace the manifest in a store's folder, durably."""
        body = {
            "format_version": FORMAT_VERSION,
            "generation": self.generation,
            "key": self.spec.key,
            "spec": self.spec.components(),
            "width": self.width,
            "shards": dict(self.shards),
            "about": dict(self.metadata),
        }
        text = json.dumps({**body, "checksum": _checksum(body)}, indent=1, sort_keys=True)
        write_atomic(folder / NAME, text.encode(), description="the manifest")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store.

    Raises
    ------
    FileNotFoundError
        If the folder has none.
    StoreFormatError
        If a newer version wrote it.
    StoreCorrupt
        If its bytes are not what was written.
    """
    return parse_manifest(folder / NAME, manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """Return the bytes of a store's manifest; raises as `read_manifest` does."""
    path = folder / NAME
    try:
        return read_own_file(path, _MAX_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _corrupt(path, str(error.strerror)) from error


def parse_manifest(path: Path, data: bytes) -> Manifest:
    """Check the bytes of a manifest; see `read_manifest`."""
    try:
        body = json.loads(data)
        version = body["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _corrupt(path, "it is not the JSON text that was written") from error
    checksum = body.pop("checksum", None)
    # With our version in its place the checksum fits: the number is damaged, nothing is newer.
    fits = checksum == _checksum({**body, "format_version": FORMAT_VERSION})
    if version != FORMAT_VERSION and not fits:
        raise StoreFormatError(
            f"{path} has format version {version!r}; this featcache reads version "
            f"{FORMAT_VERSION}. Upgrade featcache, or name another cache folder.",
            path=path,
            version=version,
        )
    if not fits or version != FORMAT_VERSION:
        raise _corrupt(path, "its checksum does not fit its content")
    try:
        spec = BackboneSpec.from_components(body["spec"])
        if spec.key != body["key"]:
            raise _corrupt(path, "its key does not belong to its spec")
        if not can_be_in(spec, path.parent):
            raise _corrupt(path, "its spec is not the one whose key is in the folder's name")
        shards = {str(name): check_integer(rows, 1, _MOST) for name, rows in body["shards"].items()}
        # These become paths: one such as "../../other" would have another store's file moved.
        if any(rows_in_name(name) != rows for name, rows in shards.items()):
            raise _corrupt(path, "it lists a file whose name is not that of a shard")
        return Manifest(
            spec=spec,
            width=check_integer(body["width"], 1, _MOST),
            generation=check_integer(body["generation"], 0, _MOST_GENERATIONS),
            shards=shards,
            metadata={str(name): str(text) for name, text in body["about"].items()},
        )
    except StoreCorrupt:
        raise
    except (FeatcacheError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt(path, f"a field is wrong ({error})") from error


def find_stores(cache_dir: Path) -> Iterator[tuple[Path, Manifest]]:
    """Yield each store of a cache folder with its manifest; damaged and lost ones are logged.

    A hidden folder is no store: one that is being removed is hidden first.
    """
    if not cache_dir.is_dir():
        return
    for folder in sorted(cache_dir.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            yield folder, read_manifest(folder)
        except FileNotFoundError:
            if count := sum(
                1 for path in folder.glob("*.h5") if rows_in_name(path.name) is not None
            ):
                log.warning(
                    "%s has %s, but no %s. `featcache repair %s` writes it again from the "
                    "shards.", folder, format_count(count, "shard"), NAME, folder,
                )  # fmt: skip
        except OSError as error:
            log.warning("%s cannot be read: %s.", folder / NAME, error.strerror or error)
        except (StoreCorrupt, StoreFormatError) as error:
            log.warning("%s", error)


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _corrupt(path: Path, reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The manifest {path} cannot be trusted: {reason}. The rows are not touched by this: "
        f"`featcache repair {path.parent}` writes it again from the shards.",
        path=path,
        reason=reason,
    )


def mark_used(folder: Path) -> None:
    """Note that a store was used just now, for `gc` by age."""
    with contextlib.suppress(OSError):  # a store in a read-only place is used as well
        os.utime(folder / NAME)
