"""The store that a person means by a name, the beginning of one, or a backbone."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import UnknownStore
from .manifest import Manifest, find_stores
from .own_files import holds_a_store

_SHOWN = 8


def find_store(name: str | os.PathLike[str], stores: Path) -> Path:
    """Return the folder of the one store that is meant.

    Parameters
    ----------
    name : str or path
        Among the stores of the cache folder: a name, the unique beginning of a name or of a
        key, a backbone of the table, or the name of an own model. Else a store's folder;
        ``./name`` always means a folder.
    stores : Path
        The folder of the stores.

    Raises
    ------
    UnknownStore
        If no store fits, or several do; carries `path` and `candidates`.
    """
    text = os.fspath(name)
    is_path = bool(os.path.dirname(text)) or text in (os.curdir, os.pardir)
    if is_path and holds_a_store(text):
        return Path(os.path.abspath(text))
    if text and not is_path and holds_a_store(os.path.join(stores, text)):
        return stores / text
    known = list(find_stores(stores))
    found = [path for path, manifest in known if _fits(text, path, manifest)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownStore(
            f"{len(found)} stores fit {text!r}: {_listed(found)}. Give more of the name.",
            path=text,
            candidates=[path.name for path in found],
        )
    if holds_a_store(text):
        return Path(os.path.abspath(text))
    there = _listed([path for path, _ in known])
    raise UnknownStore(
        f"There is no store {text!r}, neither as a folder nor in {stores}"
        + (f", which holds {there}." if known else ", which holds none.")
        + " `featcache ls` describes the stores.",
        path=text,
        candidates=[],
    )


def _fits(text: str, path: Path, manifest: Manifest) -> bool:
    spec = manifest.spec
    names = {_plain(spec.backbone), _plain(manifest.metadata.get("backbone", ""))}
    by_key = len(text) >= 4 and spec.key.startswith(text)
    return bool(text) and (path.name.startswith(text) or by_key or _plain(text) in names - {""})


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _listed(paths: list[Path]) -> str:
    names = [path.name for path in paths[:_SHOWN]]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(names) + more
