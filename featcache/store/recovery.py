"""What the shards of a store tell of it when its manifest is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from .._io.logs import get_logger
from .._io.wording import format_count
from ..backbones.spec import BackboneSpec, can_be_in
from ..errors import InvalidRequest, StoreError
from ..hdf5.shard_metadata import ShardMetadata, read_metadata
from ..hdf5.shard_name import rows_in_name
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, manifest_bytes

log = get_logger(__name__)


def manifest_of_store(folder: Path) -> bytes:
    """Return the bytes of a manifest.

    Raises
    ------
    StoreError
        If there is none, with what to do.
    StoreCorrupt
        If it is no file, or far too large.
    """
    try:
        return manifest_bytes(folder)
    except FileNotFoundError as error:
        if find_shards(folder):
            advice = f"It has shards: `featcache repair {folder}` writes it again from them."
        else:
            advice = "`featcache ls` lists the stores of a cache folder."
        raise StoreError(
            f"{folder} is not a store: it has no {MANIFEST_NAME}. {advice}", path=folder
        ) from error


def find_shards(folder: Path) -> list[Path]:
    """Return the files of a folder that have the name of a shard, sorted."""
    return [path for path in sorted(folder.glob("*.h5")) if rows_in_name(path.name) is not None]


def read_all_metadata(shards: Iterable[Path]) -> dict[str, ShardMetadata]:
    """Return what intact sidecars say of some shards, by the shard's name."""
    known = {shard.name: read_metadata(shard) for shard in shards}
    return {name: found[0] for name, found in known.items() if found is not None}


def choose_spec(
    folder: Path, all_metadata: Iterable[ShardMetadata]
) -> tuple[BackboneSpec, int] | None:
    """Return the spec and the width that most rows of a folder have.

    A spec whose key is not the one in the folder's name is a stranger's, however many rows it
    has. None if there is no other.
    """
    rows: Counter[tuple[BackboneSpec, int]] = Counter()
    for metadata in all_metadata:
        try:
            spec = BackboneSpec.from_components(metadata.components)
        except InvalidRequest:
            continue
        if can_be_in(spec, folder):
            rows[spec, metadata.width] += len(metadata.views)
    return rows.most_common(1)[0][0] if rows else None


def write_first_manifest(
    folder: Path, spec: BackboneSpec, width: int, metadata: Mapping[str, str]
) -> None:
    """Write the manifest of a new store, or of one that has lost it, if there is none.

    Parameters
    ----------
    folder : Path
        Of the store; it exists.
    spec : BackboneSpec
    width : int
        Length of an embedding; the shards of a store that lost its manifest know better.
    metadata : mapping of str to str

    Raises
    ------
    StoreWriteError
        If the system refuses.
    """
    manifest = folder / MANIFEST_NAME
    # Listed before the second look: whoever commits a shard has written a manifest before.
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
            "%s had lost its %s, which is written again from %s.",
            folder, MANIFEST_NAME, format_count(len(shards), "shard"),
        )  # fmt: skip
    Manifest(spec, width, shards=listed, metadata=metadata).write(folder)
