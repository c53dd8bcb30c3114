"""Inspection of a store's folder: valid shards, damage, and the manifest it should have."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..backbones.spec import BackboneSpec, is_possible_in
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
from .index_check import find_index_damage
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, manifest_bytes, parse_manifest
from .own_files import is_store_folder
from .recovery import MAX_LISTINGS, choose_spec, find_shards, read_all_metadata
from .salvage import row_keys, salvage
from .shard_reader import ShardReader


@dataclass(frozen=True)
class ShardFindings:
    """Metadata of a valid shard or the damage of an invalid one, and the damage of its sidecar."""

    metadata: ShardMetadata | None
    damage: Damage | None
    sidecar: Damage | None


@dataclass(frozen=True)
class Survey:
    """Result of `survey`.

    Attributes
    ----------
    manifest : Manifest or None
        The one on disk, or the one to write instead if it is damaged; None if it is damaged and
        no shard has a valid spec.
    findings : dict of str to ShardFindings
        By name of the shard; a second survey can start from them.
    damages : list of Damage
    newer : StoreFormatError or None
        If a newer version wrote the manifest.
    """

    manifest: Manifest | None
    findings: dict[str, ShardFindings]
    damages: list[Damage]
    newer: StoreFormatError | None

    def valid_shards(self) -> dict[str, ShardMetadata]:
        """Return the metadata of shards without damage, by name."""
        damaged = {damage.name for damage in self.damages}
        all_metadata = {
            name: finding.metadata for name, finding in self.findings.items() if name not in damaged
        }
        return {name: metadata for name, metadata in all_metadata.items() if metadata is not None}


def survey(folder: Path, known: Mapping[str, ShardFindings] | None = None) -> Survey:
    """List and check the files of a store; repeat it if shards are merged during the check.

    A shard that disappears, or is listed in the manifest but missing, may have been merged. The
    manifest is replaced before shards are removed, so that reading it again tells.

    Parameters
    ----------
    folder : Path
    known : mapping of str to ShardFindings, optional
        Findings of an earlier survey: shards that were valid are not checked again.

    Raises
    ------
    StoreError
        If the folder is not a store, or shards were merged during every attempt.
    OSError
        If the system cannot list or read it.
    """
    if not folder.is_dir():
        raise StoreError(f"There is no folder {folder}.", path=folder)
    if not is_store_folder(folder):
        raise StoreError(
            f"{folder} is not a store: it has neither {MANIFEST_NAME} nor a shard.", path=folder
        )
    findings = {
        n: finding
        for n, finding in (known or {}).items()
        if finding.damage is finding.sidecar is None
    }
    for _ in range(MAX_LISTINGS):
        manifest, wrong, newer, before = _read_manifest(folder)
        present = {path.name for path in folder.glob("*.h5")}
        manifest = manifest or _manifest_from_shards(folder, read_all_metadata(find_shards(folder)))
        spec = None if manifest is None else manifest.spec
        for name in sorted(present - findings.keys()):
            with contextlib.suppress(FileNotFoundError):
                findings[name] = inspect_with_sidecar(folder / name, spec)
        if not folder.is_dir():  # removed by another process, not damaged
            raise StoreError(f"There is no folder {folder} any more.", path=folder)
        if present <= findings.keys() and _read_manifest(folder)[-1] == before:
            findings = {name: findings[name] for name in sorted(present)}
            return _conclude(folder, manifest, wrong, findings, newer)
    raise StoreError(
        f"{folder} could not be checked: other processes merged its shards during each of "
        f"{MAX_LISTINGS} attempts. Run the same command again.",
        path=folder,
    )


def _read_manifest(
    folder: Path,
) -> tuple[Manifest | None, Damage | None, StoreFormatError | None, bytes]:
    """Return the manifest, its damage, the error of a newer format, and its bytes."""
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


def _manifest_from_shards(
    folder: Path, all_metadata: Mapping[str, ShardMetadata]
) -> Manifest | None:
    """Return a manifest with the spec and width of most shards; None without a valid spec."""
    found = choose_spec(folder, all_metadata.values())
    return None if found is None else Manifest(*found)


def inspect_with_sidecar(shard: Path, spec: BackboneSpec | None) -> ShardFindings:
    """Check a shard, its bytes before its content, and its sidecar."""
    found = _inspect(shard, spec)
    if isinstance(found, Damage):
        found = _inspect(shard, spec)  # again: a read error may be temporary
    reason = _sidecar_fault(shard, found) and _sidecar_fault(shard, found)
    sidecar = None if reason is None else Damage(metadata_path(shard).name, 0, reason)
    if isinstance(found, Damage):
        return ShardFindings(None, found, sidecar)
    return ShardFindings(found, None, sidecar)


def _inspect(shard: Path, spec: BackboneSpec | None) -> Damage | ShardMetadata:
    return find_damage(shard) or _check_shard(shard, spec)


def _sidecar_fault(shard: Path, found: Damage | ShardMetadata) -> str | None:
    if metadata_is_malformed(shard):
        return "its bytes are not those that were written; no row is lost"
    if isinstance(found, ShardMetadata):
        rows = ShardReader(shard.parent).read_all(shard.name, found.layout, len(found.views))
        if metadata_differs(shard, shard.stat().st_size, found, rows):
            return "it is intact, but does not describe its shard; no row is lost"
    return None


def _check_shard(shard: Path, spec: BackboneSpec | None) -> Damage | ShardMetadata:
    """Return the metadata of a shard, or its damage if a store would skip it."""
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
        raise StoreMismatch("its spec is invalid", stored=metadata.components) from error


def _conclude(
    folder: Path,
    manifest: Manifest | None,
    wrong: Damage | None,
    findings: dict[str, ShardFindings],
    newer: StoreFormatError | None,
) -> Survey:
    """Combine the findings, and add missing shards and contradictions between files."""
    all_metadata = {
        name: finding.metadata for name, finding in findings.items() if finding.metadata is not None
    }
    manifest = manifest or _manifest_from_shards(folder, all_metadata)
    found: list[Damage] = []
    if manifest is not None:
        width = _width(all_metadata.values(), manifest)
        if width != manifest.width and wrong is None:
            reason = f"its width is {manifest.width}, but the rows of its shards have {width}"
            wrong = Damage(MANIFEST_NAME, 0, reason)
        manifest = replace(manifest, width=width)
        listed = manifest.shards.items()
        found = [
            Damage(name, rows, "it is missing") for name, rows in listed if name not in findings
        ]
    found = found if wrong is None else [wrong, *found]
    found += _shard_damages(folder, manifest, findings)
    index = find_index_damage(folder, manifest, all_metadata)
    found += [] if index is None else [index]
    for path in sorted(folder.glob("*.quarantine.json")):
        with contextlib.suppress(FileNotFoundError):
            if not quarantine.is_intact(path):
                found.append(Damage(path.name, 0, "its SHA-256 is not the one in its name"))
    return Survey(manifest, findings, found, newer)


def _shard_damages(
    folder: Path, manifest: Manifest | None, findings: dict[str, ShardFindings]
) -> list[Damage]:
    """Return the damage of shards and sidecars; for damaged shards with the lost rows."""
    damages = {n: _find_damage(folder, manifest, n, finding) for n, finding in findings.items()}
    stored: set[bytes] = set()
    if any(damages.values()):
        for name, finding in findings.items():
            if damages[name] is None and finding.metadata is not None:
                stored |= set(row_keys(finding.metadata.image_ids, finding.metadata.views))
    found = []
    for name, finding in findings.items():
        damage = damages[name]
        if damage is not None:
            found.append(add_lost_rows(folder / name, damage, manifest, stored))
        if finding.sidecar is not None:
            found.append(finding.sidecar)
    return found


def add_lost_rows(
    shard: Path, damage: Damage, manifest: Manifest | None, stored: Collection[bytes]
) -> Damage:
    """Return the damage of a shard with the rows that are lost, if its sidecar is intact."""
    if manifest is None or rows_in_name(shard.name) is None:
        return damage
    saved = None
    with contextlib.suppress(OSError):  # continue with the other files
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


def _find_damage(
    folder: Path, manifest: Manifest | None, name: str, finding: ShardFindings
) -> Damage | None:
    """Return the damage of a shard, or why a valid one does not belong to this store; else None."""
    metadata = finding.metadata
    if metadata is None:
        return finding.damage
    rows = len(metadata.views)
    if not is_possible_in(BackboneSpec.from_components(metadata.components), folder):
        return Damage(name, rows, "its spec is not the one whose key is in the folder's name")
    if manifest is not None and metadata.components != manifest.spec.components():
        return Damage(name, rows, "its spec is not the store's")
    if manifest is not None and metadata.width != manifest.width:
        return Damage(name, rows, f"its rows have width {metadata.width}, not {manifest.width}")
    return None
