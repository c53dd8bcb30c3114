"""Care for a store: verify every byte, save what is sound, merge small shards."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import quarantine
from .errors import InvalidRequest, StoreCorrupt, StoreFormatError, StoreMismatch
from .hdf5 import inspect_shard
from .lease import lease
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, read_manifest
from .salvage import Salvage, salvage
from .shardhead import ENDING, ShardHead, beside, read_head
from .shards import Damage, check_bytes, rows_of
from .specs import BackboneSpec
from .store import Store, check_head

log = logging.getLogger("featcache")

# Merged shards are several times as large as any of which they are made, so that a row is
# written anew once or twice in a store's life, and what is large enough is left alone.
SMALL_SHARD_BYTES = 2 * 2**20
MERGED_SHARD_BYTES = 4 * SMALL_SHARD_BYTES
MANY_SMALL_SHARDS = 24


def verify(folder: str | Path) -> list[Damage]:
    """Check every shard, the manifest and the quarantine lists of a store.

    Parameters
    ----------
    folder : path

    Returns
    -------
    list of Damage
        Empty if every byte is the one that was committed. Rows of a damaged shard that can
        be proven to be sound do not count as lost: `repair` saves them.
    """
    folder = Path(folder)
    found: list[Damage] = []
    listed: dict[str, int] = {}
    spec: BackboneSpec | None = None
    try:
        manifest = read_manifest(folder)
        listed, spec = dict(manifest.shards), manifest.spec
    except FileNotFoundError:
        found.append(Damage(MANIFEST_NAME, 0, "it is missing"))
    except (StoreCorrupt, StoreFormatError) as error:
        found.append(Damage(MANIFEST_NAME, 0, str(error.evidence.get("reason", error))))
    present = {path.name for path in folder.glob("*.h5")}
    found += [Damage(n, rows, "it is missing") for n, rows in listed.items() if n not in present]
    for name in sorted(present):
        found += _damages_of(folder / name, spec)
    for path in sorted(folder.glob("*.quarantine.json")):
        if not quarantine.is_sound(path):
            found.append(Damage(path.name, 0, "its SHA-256 is not the one in its name"))
    return found


def _damages_of(shard: Path, spec: BackboneSpec | None) -> list[Damage]:
    """Look at a shard, its bytes first and only then at what is in them, and at its head."""
    damage = check_bytes(shard)
    if damage is None:
        damage = _misfit(shard, spec)
    elif spec is not None and (saved := salvage(shard, spec.components())) is not None:
        damage = replace(damage, rows=len(saved.lost), ids=saved.lost)
    found = [] if damage is None else [damage]
    if beside(shard).exists() and read_head(shard) is None:
        found.append(Damage(beside(shard).name, 0, "it is not what was written; no row is lost"))
    return found


def _misfit(shard: Path, spec: BackboneSpec | None) -> Damage | None:
    """Tell of a shard that is whole, but that this store would pass over: a planted one."""
    try:
        head = inspect_shard(shard)
        check_head(head, shard.name, spec or _own_spec(head), head.width)
    except (StoreCorrupt, StoreMismatch, StoreFormatError) as error:
        reason = str(error.evidence.get("reason", error))
        return Damage(shard.name, rows_of(shard.name) or 0, reason)
    return None


def _own_spec(head: ShardHead) -> BackboneSpec:
    try:
        return BackboneSpec.from_components(head.components)
    except InvalidRequest as error:
        raise StoreMismatch("its spec makes no sense", stored=head.components) from error


def repair(folder: str | Path) -> list[Damage]:
    """Set damaged files aside, save their sound rows, and write the manifest anew.

    A damaged shard is renamed to ``damaged-<name>.bad``, not deleted. Rows of it whose own
    sums are right are committed again; the next extraction computes only the others.

    Returns
    -------
    list of Damage
        What was found and mended, with the rows that are lost.
    """
    folder = Path(folder)
    damages = verify(folder)
    saved: dict[str, Salvage] = {}
    damaged = {damage.name for damage in damages}
    if MANIFEST_NAME in damaged:
        _rebuild_manifest(folder, damaged)
    described = (folder / MANIFEST_NAME).exists()
    spec = read_manifest(folder).spec if described else None
    for damage in damages:
        path = folder / damage.name
        if damage.name == MANIFEST_NAME or not path.exists():
            continue
        found = salvage(path, spec.components()) if spec and rows_of(damage.name) else None
        if found is not None:
            saved[damage.name] = found
        path.rename(folder / f"damaged-{damage.name}.bad")
    if damages and described:
        store = Store(folder)
        for found in saved.values():
            if len(found.rows) and found.rows.shape[1] == store.width:
                store.append_packed(found.rows, found.ids, found.views, {"salvaged": "1"})
        remove_orphans(folder)
        store.write_manifest()
    return [
        replace(d, rows=len(saved[d.name].lost), ids=saved[d.name].lost) if d.name in saved else d
        for d in damages
    ]


def _rebuild_manifest(folder: Path, damaged: Collection[str]) -> None:
    for path in sorted(folder.glob("*.h5")):
        if path.name not in damaged:
            head = inspect_shard(path)
            spec = BackboneSpec.from_components(head.components)
            Manifest(spec, head.width).write(folder)
            return
    # Without a sound shard there is nothing to describe: an empty folder is a fresh start.
    with contextlib.suppress(FileNotFoundError):
        (folder / MANIFEST_NAME).unlink()


def compact(
    store: Store,
    *,
    small: int = SMALL_SHARD_BYTES,
    merged: int = MERGED_SHARD_BYTES,
    many: int = MANY_SMALL_SHARDS,
) -> int:
    """Merge small shards into larger ones, once there are many.

    The merged shard is durable before a small one is removed; readers that still point to a
    removed one look again. Only one process does this at a time; extraction by others can
    go on meanwhile.

    Parameters
    ----------
    small : int
        Bytes below which a shard is small, and merged with others.
    merged : int
        Bytes of a merged shard, at most.
    many : int
        Number of small shards from which merging is worth it.

    Returns
    -------
    int
        Number of shards that were merged.
    """
    if len(_small_shards(store, small)) < many:
        return 0
    with lease(store.folder) as held:
        if not held:
            return 0
        store.refresh()  # another process may have merged some before we had the lease
        names = _small_shards(store, small)
        per_group = max(2, merged // (4 * store.width + 64))
        replaced: list[str] = []
        for group in _groups(store, names, per_group):
            replaced += _merge(store, group)
        # First the manifest, then the removal: a kill in between leaves rows twice, which
        # does no harm, and never a manifest that misses a shard.
        store.write_manifest_under_lease(without=replaced)
        remove_shards(store.folder, replaced)
        remove_orphans(store.folder)
        store.refresh()
    log.info("%s: merged %d small shards", store.folder.name, len(replaced))
    return len(replaced)


def remove_shards(folder: Path, names: Iterable[str]) -> None:
    """Remove shards whose rows are in others, or are not wanted any more.

    One that the system will not let go is left: its rows are there twice, which does no
    harm, and the next merge tries again.
    """
    for name in names:
        for path in (folder / name, beside(folder / name)):
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s could not be removed: %s.", path, error.strerror or error)


def remove_orphans(folder: Path) -> None:
    """Remove the heads of shards that are gone; a reader may have written one meanwhile."""
    for path in folder.glob(f"*.h5{ENDING}"):
        if not path.with_name(path.name.removesuffix(ENDING)).exists():
            with contextlib.suppress(OSError):
                path.unlink()


def _small_shards(store: Store, small: int) -> list[str]:
    found = []
    for name in store.shard_names:
        with contextlib.suppress(FileNotFoundError):
            if (store.folder / name).stat().st_size < small:
                found.append(name)
    return found


def _groups(store: Store, names: list[str], rows: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    count = 0
    for name in names:
        size = int(name.split("-")[2])
        if groups[-1] and count + size > rows:
            groups.append([])
            count = 0
        groups[-1].append(name)
        count += size
    return [group for group in groups if len(group) > 1]


def _merge(store: Store, names: list[str]) -> list[str]:
    parts = []
    seconds = 0.0
    for name in names:
        found = store.read_shard(name)
        if found is not None:
            rows, head = found
            parts.append((name, rows, head.image_ids, head.views))
            seconds += head.seconds
    if len(parts) < 2:
        return []
    ids = np.concatenate([part[2] for part in parts])
    views = np.concatenate([part[3] for part in parts])
    keys = np.column_stack([ids, views.view("u1").reshape(-1, 4)])
    _, first = np.unique(keys, axis=0, return_index=True)
    first.sort()
    rows = np.concatenate([part[1] for part in parts])[first]
    about = {"merged": str(len(parts)), "seconds": f"{seconds:.6f}"}
    store.append_packed(rows, ids[first], views[first], about)
    return [part[0] for part in parts]
