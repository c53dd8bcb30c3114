"""Care for a store: verify every byte, save what is sound, merge small shards."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import quarantine
from .errors import InvalidRequest, StoreCorrupt, StoreFormatError
from .hdf5 import ShardHead, ShardReader
from .lease import lease
from .manifest import NAME as MANIFEST_NAME
from .manifest import Manifest, read_manifest
from .rowfiles import RowFiles
from .salvage import salvage
from .shards import Damage, check_bytes, rows_of
from .specs import BackboneSpec
from .store import Store

log = logging.getLogger("featcache")

SMALL_SHARD_BYTES = 8 * 2**20
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
        damage = _damage_of(folder / name, spec)
        if damage is not None:
            found.append(damage)
    for path in sorted(folder.glob("*.quarantine.json")):
        if not quarantine.is_sound(path):
            found.append(Damage(path.name, 0, "its SHA-256 is not the one in its name"))
    return found


def _damage_of(path: Path, spec: BackboneSpec | None) -> Damage | None:
    """Look at one shard: its bytes first, and only then at what is in them."""
    damage = check_bytes(path)
    if damage is None:
        return _misfit(path, spec)
    saved = salvage(path, spec.components()) if spec is not None else None
    if saved is None:
        return damage
    return replace(damage, rows=len(saved.lost), ids=saved.lost)


def _misfit(path: Path, spec: BackboneSpec | None) -> Damage | None:
    """Tell of a shard that is whole, but that this store would pass over: a planted one."""
    rows = rows_of(path.name) or 0
    try:
        with ShardReader(path) as reader:
            fits = spec is None or reader.head.components == spec.components()
    except (StoreCorrupt, StoreFormatError) as error:
        return Damage(path.name, rows, str(error.evidence.get("reason", error)))
    return None if fits else Damage(path.name, rows, "its spec is not the store's")


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
    aside: dict[str, Path] = {}
    for damage in damages:
        path = folder / damage.name
        if damage.name != MANIFEST_NAME and path.exists():
            aside[damage.name] = path.rename(folder / f"damaged-{damage.name}.bad")
    if any(damage.name == MANIFEST_NAME for damage in damages):
        _rebuild_manifest(folder)
    if not damages or not (folder / MANIFEST_NAME).exists():
        return damages
    store = Store(folder)
    damages = [_saved(store, damage, aside.get(damage.name)) for damage in damages]
    store.write_manifest()
    return damages


def _saved(store: Store, damage: Damage, path: Path | None) -> Damage:
    """Commit the sound rows of a shard that was set aside; return what is lost all the same."""
    found = None
    if path is not None and rows_of(damage.name):
        found = salvage(path, store.spec.components())
    if found is None:
        return damage
    if len(found.rows) and found.rows.shape[1] == store.width:
        store.append_packed(found.rows, found.ids, found.views, {"salvaged": "1"})
    return replace(damage, rows=len(found.lost), ids=found.lost)


def _rebuild_manifest(folder: Path) -> None:
    for path in sorted(folder.glob("*.h5")):
        odd = contextlib.suppress(StoreCorrupt, StoreFormatError, InvalidRequest)
        with odd, ShardReader(path) as reader:
            spec = BackboneSpec.from_components(reader.head.components)
            Manifest(spec, reader.head.width).write(folder)
            return
    # Without a sound shard there is nothing to describe: an empty folder is a fresh start.
    with contextlib.suppress(FileNotFoundError):
        (folder / MANIFEST_NAME).unlink()


def compact(store: Store, *, small: int = SMALL_SHARD_BYTES, many: int = MANY_SMALL_SHARDS) -> int:
    """Merge small shards into larger ones, once there are many.

    The merged shard is durable before a small one is removed; readers that still point to a
    removed one look again. Only one process does this at a time; extraction by others can
    go on meanwhile.

    Parameters
    ----------
    small : int
        Bytes below which a shard is small, and up to which shards are merged.
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
        per_group = max(2, small // (4 * store.width + 64))
        replaced: list[str] = []
        for group in _groups(store, names, per_group):
            replaced += _merge(store, group)
        # First the manifest, then the removal: a kill in between leaves rows twice, which
        # does no harm, and never a manifest that misses a shard.
        store.write_manifest_under_lease(without=replaced)
        remove_shards(store.folder, replaced)
        store.refresh()
    log.info("%s: merged %d small shards", store.folder.name, len(replaced))
    return len(replaced)


def remove_shards(folder: Path, names: Iterable[str]) -> None:
    """Remove shards whose rows are in others, or are not wanted any more.

    One that the system will not let go is left: its rows are there twice, which does no
    harm, and the next merge tries again.
    """
    for name in names:
        try:
            (folder / name).unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            log.warning("%s could not be removed: %s.", folder / name, error.strerror or error)


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


def read_shard(path: Path) -> tuple[NDArray[np.float32], ShardHead] | None:
    """Read a whole shard; None if it is damaged: it stays where it is, for verify and repair."""
    if check_bytes(path) is not None:
        return None
    with ShardReader(path) as reader:
        head = reader.head
    return RowFiles(path.parent).read_all(path.name, head.layout, len(head.views)), head


def _merge(store: Store, names: list[str]) -> list[str]:
    parts = []
    seconds = 0.0
    for name in names:
        found = read_shard(store.folder / name)
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
