"""Lookup of a store by name, prefix of a name or key, or backbone."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._io.paths import absolute_path
from ..errors import UnknownStore
from .manifest import Manifest, find_stores
from .own_files import is_store_folder

_MAX_NAMES = 8


def find_store(name: str | os.PathLike[str], stores: Path) -> Path:
    """Return the folder of the store that a name identifies.

    Parameters
    ----------
    name : str or path-like
        Of a store in the cache folder: its name, a unique prefix of its name or key, its
        backbone, or the name of your own model. Else the folder of a store; ``./name`` always
        means a folder.
    stores : Path
        The folder of the stores.

    Raises
    ------
    UnknownStore
        If no store matches, or several do; carries `path` and `candidates`.
    """
    text = os.fspath(name)
    is_path = bool(os.path.dirname(text)) or text in (os.curdir, os.pardir)
    if is_path and is_store_folder(absolute_path(text)):
        return absolute_path(text)
    if text and not is_path and is_store_folder(os.path.join(stores, text)):
        return stores / text
    known = list(find_stores(stores))
    found = [path for path, manifest in known if _matches(text, path, manifest)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownStore(
            f"{len(found)} stores match {text!r}: {_format_names(found)}. Give a longer prefix.",
            path=text,
            candidates=[path.name for path in found],
        )
    if text and is_store_folder(absolute_path(text)):
        return absolute_path(text)
    names = _format_names([path for path, _ in known])
    raise UnknownStore(
        f"There is no store {text!r}, neither as a folder nor in {stores}"
        + (f", which holds {names}." if known else ", which holds none.")
        + " `featcache ls` describes the stores.",
        path=text,
        candidates=[],
    )


def _matches(text: str, path: Path, manifest: Manifest) -> bool:
    spec = manifest.spec
    names = {_normalize(spec.backbone), _normalize(manifest.metadata.get("backbone", ""))}
    by_key = len(text) >= 4 and spec.key.startswith(text)
    return bool(text) and (path.name.startswith(text) or by_key or _normalize(text) in names - {""})


def _normalize(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _format_names(paths: list[Path]) -> str:
    names = [path.name for path in paths[:_MAX_NAMES]]
    more = f" and {len(paths) - _MAX_NAMES} more" if len(paths) > _MAX_NAMES else ""
    return ", ".join(names) + more
