"""Names and shapes of the layers in a weights file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
from h5py import h5o  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without a stub

from .._io.wording import first_line

_Member = TypeVar("_Member")


@dataclass(frozen=True)
class SavedLayer:
    """A layer of a weights file.

    Attributes
    ----------
    path : str
        Group in a ``.weights.h5`` file, such as ``layers/conv2d_3``; the layer's name in an
        older file, whose layers are in the order of the network.
    name : str
        The layer's name when it was saved.
    shapes : tuple of tuple of int
        Shapes of the weights; empty for a layer without weights.
    """

    path: str
    name: str
    shapes: tuple[tuple[int, ...], ...]


def saved_layers(path: Path) -> list[SavedLayer]:
    """Return the layers of a weights file that `unsafe_hdf5_reason` has accepted.

    State of random generators, as of dropout layers, and of optimizers is left out.

    Raises
    ------
    ValueError
        If the file has neither of the two structures that Keras writes.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            old = file
            if "layer_names" not in file.attrs and "model_weights" in file:
                old = _member(file, "model_weights", h5py.Group)
            if "layer_names" in old.attrs or "layer_names0" in old.attrs:
                return list(_old_layers(old))
            return list(_layers_below(file, "", set()))
    except (OSError, KeyError, TypeError, AttributeError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"it is not a weights file of Keras ({first_line(error)})") from error


def _old_layers(group: h5py.Group) -> Iterator[SavedLayer]:
    for name in _names(group, "layer_names"):
        layer = _member(group, name, h5py.Group)
        weights = _names(layer, "weight_names")
        shapes = tuple(tuple(_member(layer, weight, h5py.Dataset).shape) for weight in weights)
        yield SavedLayer(name, name, shapes)


def _member(group: h5py.Group, name: str, kind: type[_Member]) -> _Member:
    """Return a member of a group; raise `TypeError` if it is of another kind."""
    found = group[name]
    if not isinstance(found, kind):
        raise TypeError(f"{name!r} is not a {kind.__name__.lower()}")
    return found


def _attribute(group: h5py.Group, name: str) -> Any:
    return group.attrs[name]


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names; Keras splits a long one into several attributes."""
    parts = [attribute] if attribute in group.attrs else []
    if not parts:
        counted = (f"{attribute}{number}" for number in itertools.count())
        parts = list(itertools.takewhile(lambda part: part in group.attrs, counted))
    found = [name for part in parts for name in _attribute(group, part)]
    return [n.decode() if isinstance(n, bytes) else str(n) for n in found]


def _layers_below(group: h5py.Group, path: str, seen: set[int]) -> Iterator[SavedLayer]:
    address = h5o.get_info(group.id).addr
    if address in seen:  # a group that contains itself would be traversed forever
        return
    seen.add(address)
    for name in map(str, group):
        below = f"{path}/{name}" if path else name
        saved = group[name]
        if name in ("optimizer", "seed_generator") or not isinstance(saved, h5py.Group):
            continue
        if name != "vars":
            yield from _layers_below(saved, below, seen)
        elif path:
            order = sorted(saved, key=lambda key: (len(key), key))
            shapes = tuple(tuple(_member(saved, key, h5py.Dataset).shape) for key in order)
            yield SavedLayer(path, str(saved.attrs.get("name", path)), shapes)
