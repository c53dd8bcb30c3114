"""What is in a store's folder, checked: valid shards, damage, and what the store should be."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..backbones.spec import BackboneSpec, can_be_in
from ..errors import InvalidRequest, StoreCorrupt, StoreError, StoreFormatError, StoreMismatch
from ..hdf5.sandbox import inspect_shard
from ..hdf5.shard_metadata import (
    ShardMetadata,
    check_metadata,
    metadata_differs,
    metadata_is_malformed,
    metadata_path,
)
from ..hdf5.shard_name import Damage, find_damage, rows_in_name
from . import quarantine
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, manifest_bytes, parse_manifest
from .own_files import holds_a_store
from .recovery import choose_spec, find_shards, read_all_metadata
from .salvage import row_keys, salvage
from .shard_reader import ShardReader

_LOOKS = 50  # a busy store may merge a shard away in each of several looks


@dataclass(frozen=True)
class Look:
    """What was found in a shard: its metadata if valid, else its damage; and its sidecar's."""

    metadata: ShardMetadata | None
    damage: Damage | None
    sidecar: Damage | None


@dataclass(frozen=True)
class Survey:
    """All that was found in a store's folder.

    Attributes
    ----------
    manifest : Manifest or None
        The one on disk, or the one to write instead if it is among the damages; None if no
        shard tells what the store holds.
    looks : dict of str to Look
        By shard, for a second survey to begin with.
    damages : list of Damage
    newer : StoreFormatError or None
        If a newer version wrote the manifest.
    """

    manifest: Manifest | None
    looks: dict[str, Look]
    damages: list[Damage]
    newer: StoreFormatError | None

    def valid_shards(self) -> dict[str, ShardMetadata]:
        """Return what the shards without damage say, by name."""
        damaged = {damage.name for damage in self.damages}
        all_metadata = {
            name: look.metadata for name, look in self.looks.items() if name not in damaged
        }
        return {name: metadata for name, metadata in all_metadata.items() if metadata is not None}


def survey(folder: Path, known: Mapping[str, Look] | None = None) -> Survey:
    """List and check the files of a store until no shard was merged away meanwhile.

    A shard that vanishes, and one that the manifest lists but that is not there, may have
    been merged since the manifest was read, which is replaced first: so it is read again.

    Parameters
    ----------
    folder : Path
    known : mapping of str to Look, optional
        Of an earlier survey: what was valid then is not checked again.

    Raises
    ------
    StoreError
        If it is no folder of a store, or shards were merged during every look.
    OSError
        If the system cannot list or read it.
    """
    if not folder.is_dir():
        raise StoreError(f"There is no folder {folder}.", path=folder)
    if not holds_a_store(folder):
        raise StoreError(
            f"{folder} is not a store: it has neither {MANIFEST_NAME} nor a shard.", path=folder
        )
    looks = {n: look for n, look in (known or {}).items() if look.damage is look.sidecar is None}
    for _ in range(_LOOKS):
        manifest, wrong, newer, before = _read(folder)
        present = {path.name for path in folder.glob("*.h5")}
        manifest = manifest or _described(folder, read_all_metadata(find_shards(folder)))
        spec = None if manifest is None else manifest.spec
        for name in sorted(present - looks.keys()):
            with contextlib.suppress(FileNotFoundError):
                looks[name] = _look_at(folder / name, spec)
        if not folder.is_dir():  # removed since: what is missing is no damage
            raise StoreError(f"There is no folder {folder} any more.", path=folder)
        if present <= looks.keys() and _read(folder)[-1] == before:
            looks = {name: looks[name] for name in sorted(present)}
            return _concluded(folder, manifest, wrong, looks, newer)
    raise StoreError(
        f"{folder} could not be checked: other processes merged its shards during each of {_LOOKS} "
        "looks. Run the same again.",
        path=folder,
    )


def _read(folder: Path) -> tuple[Manifest | None, Damage | None, StoreFormatError | None, bytes]:
    """Return the manifest or what is wrong with it, and its bytes."""
    data = b""
    try:
        data = manifest_bytes(folder)
        return parse_manifest(folder / MANIFEST_NAME, data), None, None, data
    except FileNotFoundError:
        return None, Damage(MANIFEST_NAME, 0, "it is missing"), None, data
    except (StoreCorrupt, StoreFormatError) as error:
        reason = error.reason or str(error)
        newer = error if isinstance(error, StoreFormatError) else None
        return None, Damage(MANIFEST_NAME, 0, reason), newer, data


def _described(folder: Path, all_metadata: Mapping[str, ShardMetadata]) -> Manifest | None:
    """Return the manifest that some shards make up; None if they do not tell it."""
    found = choose_spec(folder, all_metadata.values())
    return None if found is None else Manifest(*found)


def _look_at(shard: Path, spec: BackboneSpec | None) -> Look:
    """Look at a shard, its bytes first and only then at what is in them, and at its sidecar."""
    found = _inspected(shard, spec)
    if isinstance(found, Damage):
        found = _inspected(shard, spec)  # a disk may fail once; what is set aside must be damaged
    reason = _sidecar_fault(shard, found) and _sidecar_fault(shard, found)
    sidecar = None if reason is None else Damage(metadata_path(shard).name, 0, reason)
    if isinstance(found, Damage):
        return Look(None, found, sidecar)
    return Look(found, None, sidecar)


def _inspected(shard: Path, spec: BackboneSpec | None) -> Damage | ShardMetadata:
    try:
        return find_damage(shard) or _misfit(shard, spec)
    except FileNotFoundError:
        if not shard.is_symlink():
            raise
        return Damage(shard.name, rows_in_name(shard.name) or 0, "it is a link to nothing")


def _sidecar_fault(shard: Path, found: Damage | ShardMetadata) -> str | None:
    if metadata_is_malformed(shard):
        return "it is not what was written; no row is lost"
    if isinstance(found, ShardMetadata):
        rows = ShardReader(shard.parent).read_all(shard.name, found.layout, len(found.views))
        if metadata_differs(shard, shard.stat().st_size, found, rows):
            return "it is intact, but does not describe its shard; no row is lost"
    return None


def _misfit(shard: Path, spec: BackboneSpec | None) -> Damage | ShardMetadata:
    """Return what a shard says, or its damage if the store would pass it over: a planted one."""
    try:
        metadata = inspect_shard(shard)
        check_metadata(
            metadata, shard.name, (spec or _own_spec(metadata)).components(), metadata.width
        )
        return metadata
    except (StoreCorrupt, StoreMismatch, StoreFormatError) as error:
        reason = error.reason or str(error)
        return Damage(shard.name, rows_in_name(shard.name) or 0, reason)


def _own_spec(metadata: ShardMetadata) -> BackboneSpec:
    try:
        return BackboneSpec.from_components(metadata.components)
    except InvalidRequest as error:
        raise StoreMismatch("its spec makes no sense", stored=metadata.components) from error


def _concluded(
    folder: Path,
    manifest: Manifest | None,
    wrong: Damage | None,
    looks: dict[str, Look],
    newer: StoreFormatError | None,
) -> Survey:
    """Put together what was found one by one: what is missing, what does not fit the others."""
    all_metadata = {
        name: look.metadata for name, look in looks.items() if look.metadata is not None
    }
    manifest = manifest or _described(folder, all_metadata)
    found: list[Damage] = []
    if manifest is not None:
        width = _width(all_metadata.values(), manifest)
        if width != manifest.width and wrong is None:
            reason = f"its width is {manifest.width}, but the rows of its shards have {width}"
            wrong = Damage(MANIFEST_NAME, 0, reason)
        manifest = replace(manifest, width=width)
        listed = manifest.shards.items()
        found = [Damage(name, rows, "it is missing") for name, rows in listed if name not in looks]
    found = found if wrong is None else [wrong, *found]
    found += _of_shards(folder, manifest, looks)
    for path in sorted(folder.glob("*.quarantine.json")):
        with contextlib.suppress(FileNotFoundError):
            if not quarantine.is_sound(path):
                found.append(Damage(path.name, 0, "its SHA-256 is not the one in its name"))
    return Survey(manifest, looks, found, newer)


def _of_shards(folder: Path, manifest: Manifest | None, looks: dict[str, Look]) -> list[Damage]:
    """Return the damage of shards and sidecars; of a damaged shard, the rows that are lost."""
    damages = {n: look.damage or _unlike(folder, manifest, n, look) for n, look in looks.items()}
    stored: set[bytes] = set()
    if any(damages.values()):
        for name, look in looks.items():
            if damages[name] is None and look.metadata is not None:
                stored |= set(row_keys(look.metadata.image_ids, look.metadata.views))
    found = []
    for name, look in looks.items():
        damage = damages[name]
        if damage is not None:
            found.append(_with_lost_rows(folder / name, damage, manifest, stored))
        if look.sidecar is not None:
            found.append(look.sidecar)
    return found


def _with_lost_rows(
    shard: Path, damage: Damage, manifest: Manifest | None, stored: Collection[bytes]
) -> Damage:
    if manifest is None or rows_in_name(shard.name) is None:
        return damage
    saved = None
    with contextlib.suppress(OSError):  # verify tells of the other files as well
        saved = salvage(shard, manifest.spec.components(), manifest.width)
    if saved is None:
        return damage
    lost = saved.lost_without(stored)
    return replace(damage, rows=len(lost), ids=lost)


def _width(all_metadata: Collection[ShardMetadata], manifest: Manifest) -> int:
    """Return the width of a store's rows: the manifest's, unless no shard has it."""
    same = [
        metadata.width
        for metadata in all_metadata
        if metadata.components == manifest.spec.components()
    ]
    return manifest.width if manifest.width in same or not same else max(set(same), key=same.count)


def _unlike(folder: Path, manifest: Manifest | None, name: str, look: Look) -> Damage | None:
    """Return the damage of a valid shard that is no part of this store."""
    metadata = look.metadata
    if metadata is None:
        return None
    rows = len(metadata.views)
    if not can_be_in(BackboneSpec.from_components(metadata.components), folder):
        return Damage(name, rows, "its spec is not the one whose key is in the folder's name")
    if manifest is not None and metadata.components != manifest.spec.components():
        return Damage(name, rows, "its spec is not the store's")
    if manifest is not None and metadata.width != manifest.width:
        return Damage(name, rows, f"its rows have width {metadata.width}, not {manifest.width}")
    return None
