"""Recovery of a lost manifest from the shards of a store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from .._io.logs import get_logger
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec, is_possible_in
from ..errors import InvalidRequest, StoreError
from ..hdf5.shard_metadata import ShardMetadata, read_metadata
from ..hdf5.shard_name import rows_in_name
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, manifest_bytes

log = get_logger(__name__)

MAX_LISTINGS = 50  # a busy store may merge a shard away during each of several listings


def manifest_of_store(folder: Path) -> bytes:
    """Return the bytes of a manifest.

    Raises
    ------
    StoreError
        If there is none; the message has advice.
    StoreCorrupt
        If it is not a regular file, or too large.
    """
    try:
        return manifest_bytes(folder)
    except FileNotFoundError as error:
        if find_shards(folder):
            advice = f"It has shards: `featcache repair {folder}` rewrites it from them."
        else:
            advice = "`featcache ls` lists the stores of a cache folder."
        raise StoreError(
            f"{folder} is not a store: it has no {MANIFEST_NAME}. {advice}", path=folder
        ) from error


def find_shards(folder: Path) -> list[Path]:
    """Return the files of a folder that are named like a shard, sorted."""
    return [path for path in sorted(folder.glob("*.h5")) if rows_in_name(path.name) is not None]


def read_all_metadata(shards: Iterable[Path]) -> dict[str, ShardMetadata]:
    """Return the metadata in intact sidecars of some shards, by the shard's name."""
    known = {shard.name: read_metadata(shard) for shard in shards}
    return {name: found[0] for name, found in known.items() if found is not None}


def choose_spec(
    folder: Path, all_metadata: Iterable[ShardMetadata]
) -> tuple[BackboneSpec, int] | None:
    """Return the spec and the width of most rows in a folder; None if no spec is possible.

    Specs whose key contradicts the folder's name are ignored, however many rows they have.
    """
    rows: Counter[tuple[BackboneSpec, int]] = Counter()
    for metadata in all_metadata:
        try:
            spec = BackboneSpec.from_components(metadata.components)
        except InvalidRequest:
            continue
        if is_possible_in(spec, folder):
            rows[spec, metadata.width] += len(metadata.views)
    return rows.most_common(1)[0][0] if rows else None


def write_first_manifest(
    folder: Path, spec: BackboneSpec, width: int, metadata: Mapping[str, str]
) -> None:
    """Write the manifest of a store if it has none.

    Parameters
    ----------
    folder : Path
        The existing folder of the store.
    spec : BackboneSpec
    width : int
        Length of an embedding; the width of existing shards takes precedence.
    metadata : mapping of str to str

    Raises
    ------
    StoreWriteError
        If the system refuses.
    """
    manifest = folder / MANIFEST_NAME
    # List before the second check: a process writes the manifest before it commits a shard.
    shards = [] if manifest.exists() else find_shards(folder)
    if manifest.exists():
        return
    same = {n: h for n, h in read_all_metadata(shards).items() if h.components == spec.components()}
    found = choose_spec(folder, same.values())
    width = found[1] if found else width
    listed = {
        name: len(metadata.views) for name, metadata in same.items() if metadata.width == width
    }
    if shards:
        log.warning(
            "%s had lost its %s, which is rewritten from %s.",
            folder, MANIFEST_NAME, format_count(len(shards), "shard"),
        )  # fmt: skip
    Manifest(spec, width, shards=listed, metadata=metadata).write(folder)
