"""The manifest of a store: its spec, its list of shards and a checksum.

The shards in the folder are authoritative. The manifest reveals a missing shard, and describes
the store without opening one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._io.atomic import write_atomic
from .._io.hashes import json_hash
from .._io.logs import get_logger
from .._io.own_files import check_integer, read_own_file
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec, is_possible_in
from ..errors import FeatcacheError, StoreCorrupt, StoreFormatError, StoreMismatch
from ..hdf5.checked_file import FORMAT_VERSION
from ..hdf5.shard_name import rows_in_name, rows_in_names

log = get_logger(__name__)

NAME = "MANIFEST.json"
_MAX_NUMBER = 2**31 - 1
_MAX_GENERATION = 2**63
_COMMA, _INDENT = re.compile(rb",\n *"), re.compile(rb"\n *")
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Manifest:
    """Content of a manifest.

    Attributes
    ----------
    spec : BackboneSpec
        The spec of every row.
    width : int
        Length of an embedding.
    generation : int
        Incremented at each replacement.
    shards : mapping of str to int
        Number of rows of each shard present when it was written; later shards are not listed.
    metadata : mapping of str to str
        Description: name of the backbone, origin of the weights and the argument that chooses
        them, preprocessing.
    """

    spec: BackboneSpec
    width: int
    generation: int = 0
    shards: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the bytes of the manifest's file."""
        body = {
            "format_version": FORMAT_VERSION,
            "generation": self.generation,
            "key": self.spec.key,
            "spec": self.spec.components(),
            "width": self.width,
            "shards": dict(self.shards),
            "about": dict(self.metadata),
        }
        text = json.dumps({**body, "checksum": json_hash(body)}, indent=1, sort_keys=True)
        return text.encode()

    def write(self, folder: Path) -> None:
        """Write the manifest to a store's folder, atomically and durably."""
        write_atomic(folder / NAME, self.encode(), description="the manifest")


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a store.

    Raises
    ------
    FileNotFoundError
        If the folder has none.
    StoreFormatError
        If a newer version wrote it.
    StoreCorrupt
        If its bytes are not those that were written.
    """
    return parse_manifest(folder / NAME, manifest_bytes(folder))


def manifest_bytes(folder: Path) -> bytes:
    """Return the bytes of a store's manifest; raises as `read_manifest` does."""
    path = folder / NAME
    try:
        return read_own_file(path, MAX_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise _corrupt_error(path, str(error.strerror)) from error


def parse_manifest(path: Path, data: bytes) -> Manifest:
    """Parse and check the bytes of a manifest; see `read_manifest`."""
    try:
        body = json.loads(data)
        version = body["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _corrupt_error(path, "it is not the JSON text that was written") from error
    checksum = body.pop("checksum", None)
    # If the checksum is right with this version's number, only the number is damaged.
    is_intact = (version == FORMAT_VERSION and _is_checksum_of(checksum, data)) or (
        checksum == json_hash({**body, "format_version": FORMAT_VERSION})
    )
    if version != FORMAT_VERSION and not is_intact:
        raise StoreFormatError(
            f"{path} has format version {version!r}; this featcache reads version "
            f"{FORMAT_VERSION}. Upgrade featcache, or name another cache folder.",
            path=path,
            version=version,
        )
    if not is_intact or version != FORMAT_VERSION:
        raise _corrupt_error(path, "its checksum does not fit its content")
    return _parse_fields(path, body)


def _is_checksum_of(checksum: object, data: bytes) -> bool:
    """Return whether a checksum is that of a manifest as `Manifest.encode` writes it.

    That is `json_hash` of the parsed text, without writing it as JSON again, which takes longer
    than all else for 100,000 shards. Only the spaces between values differ: JSON text has no line
    break within a value.
    """
    text = _INDENT.sub(b"", _COMMA.sub(b", ", data))
    text = text.replace(f'"checksum": "{checksum}", '.encode(errors="replace"), b"", 1)
    return hashlib.sha256(text).hexdigest() == checksum


def _parse_fields(path: Path, body: Mapping[str, Any]) -> Manifest:
    """Check each field of a manifest; whoever made the file may have made its checksum fit."""
    try:
        spec = BackboneSpec.from_components(body["spec"])
        if spec.key != body["key"]:
            raise _corrupt_error(path, "its key does not belong to its spec")
        if not is_possible_in(spec, path.parent):
            raise _corrupt_error(path, "its spec is not the one whose key is in the folder's name")
        shards = {
            str(name): check_integer(rows, 1, _MAX_NUMBER) for name, rows in body["shards"].items()
        }
        # These become paths: "../../other" would make repair move a file of another store.
        if rows_in_names(list(shards)) != list(shards.values()):
            raise _corrupt_error(path, "it lists a file whose name is not that of a shard")
        return Manifest(
            spec=spec,
            width=check_integer(body["width"], 1, _MAX_NUMBER),
            generation=check_integer(body["generation"], 0, _MAX_GENERATION),
            shards=shards,
            metadata={str(name): str(text) for name, text in body["about"].items()},
        )
    except StoreCorrupt:
        raise
    except (FeatcacheError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _corrupt_error(path, f"a field is wrong ({error})") from error


def mismatch_error(
    folder: Path, manifest: Manifest, spec: BackboneSpec, width: int
) -> StoreMismatch:
    """Return the error for a store that holds rows of another spec or width."""
    if manifest.spec == spec:
        return StoreMismatch(
            f"The manifest of {folder} says that its rows have width {manifest.width}, but "
            f"the backbone gives {width}. `featcache verify {folder.name}` describes the "
            "damage, `featcache repair` rewrites the manifest.",
            path=folder,
            stored=manifest.width,
            requested=width,
        )
    return StoreMismatch(
        f"{folder} contains embeddings of another spec (width {manifest.width}, key "
        f"{manifest.spec.key[:16]}) than the requested one (width {width}, key "
        f"{spec.key[:16]}). Choose another cache folder.",
        path=folder,
        stored=manifest.spec,
        requested=spec,
    )


def find_stores(cache_dir: Path) -> Iterator[tuple[Path, Manifest]]:
    """Yield each store below a folder with its manifest; unusable ones are logged.

    Hidden folders are skipped: a store that is being removed is hidden first.
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
                    "%s has %s, but no %s. `featcache repair %s` rewrites it from the "
                    "shards.", folder, format_count(count, "shard"), NAME, folder,
                )  # fmt: skip
        except OSError as error:
            log.warning("%s cannot be read: %s.", folder / NAME, error.strerror or error)
        except (StoreCorrupt, StoreFormatError) as error:
            log.warning("%s", error)


def _corrupt_error(path: Path, reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The manifest {path} cannot be used: {reason}. The rows are not affected: "
        f"`featcache repair {path.parent}` rewrites it from the shards.",
        path=path,
        reason=reason,
    )


def mark_used(folder: Path) -> None:
    """Set the time of last use of a store, by which `gc` removes unused ones."""
    with contextlib.suppress(OSError):  # a read-only store can be used as well
        os.utime(folder / NAME)
