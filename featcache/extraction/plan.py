"""Decide, then act: what an extraction will do, as a value that can be printed.

Pure functions over content ids; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..backbones.spec import BackboneSpec, differing
from ..data.file_index import FileIdentity


@dataclass(frozen=True)
class Plan:
    """What to do with each image of a data set.

    Attributes
    ----------
    stored : int
        Images whose embedding is stored.
    compute : sequence of (int, str)
        Position in the data set and content id of each image to compute. A content that
        occurs several times is computed once.
    quarantined : mapping of int to str
        Position -> reason, for images that are known to be unusable.
    """

    stored: int
    compute: Sequence[tuple[int, str]]
    quarantined: Mapping[int, str]


def make_plan(
    files: Sequence[FileIdentity],
    stored: Collection[str],
    known_bad: Mapping[str, str],
    *,
    retry_failed: bool = False,
) -> Plan:
    """Sort images into stored, to compute and quarantined.

    Parameters
    ----------
    files : sequence of FileIdentity
        Content id or failure of each image.
    stored : collection of str
        Content ids that have a row.
    known_bad : mapping of str to str
        Content id -> reason of earlier failures.
    retry_failed : bool
        Compute what failed earlier once more.
    """
    n_stored = 0
    compute: dict[str, int] = {}
    quarantined: dict[int, str] = {}
    for position, file in enumerate(files):
        if file.image_id is None:
            quarantined[position] = file.reason or "cannot be read"
        elif file.image_id in stored:
            n_stored += 1
        elif file.image_id in known_bad and not retry_failed:
            quarantined[position] = known_bad[file.image_id]
        else:
            compute.setdefault(file.image_id, position)
    return Plan(n_stored, [(p, image_id) for image_id, p in compute.items()], quarantined)


@dataclass(frozen=True)
class Explanation:
    """Why an extraction computes what it computes, and where.

    Attributes
    ----------
    images, stored, to_compute, quarantined : int
        Counts; a content that occurs several times is computed once.
    folder : Path
        Where rows are or will be.
    exists : bool
        Whether that store is there already.
    spec : BackboneSpec
    nearest : Path or None
        If it does not exist, the store that differs least.
    differs_in : list of str
        The components of the key in which `nearest` differs.
    values : dict of str to (str, str)
        For each of them the value there and here, as people know it.
    """

    images: int
    stored: int
    to_compute: int
    quarantined: int
    folder: Path
    exists: bool
    spec: BackboneSpec
    nearest: Path | None = None
    differs_in: list[str] = field(default_factory=list)
    values: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        line = (
            f"{self.images} images: {self.stored} stored, {self.to_compute} to compute, "
            f"{self.quarantined} quarantined; store {self.folder}"
        )
        if self.exists:
            return line
        if self.nearest is None:
            return f"{line} (new: no store of {self.spec.backbone} yet)"
        changes = "; ".join(self._change(name) for name in self.values)
        return f"{line} (new: the nearest store, {self.nearest.name}, differs in {changes})"

    def _change(self, name: str) -> str:
        """Say how a component differs; where both have the same description, only that it does."""
        there, here = self.values[name]
        if there != here:
            return f"{name}: {there} there, {here} here"
        if name == "weights":
            return "weights of other layers" if "layer" in self.values else "other weights"
        return f"{name}: another one called {here}"


def nearest_store(
    spec: BackboneSpec, stores: Sequence[tuple[Path, BackboneSpec]]
) -> tuple[Path, BackboneSpec, list[str]] | None:
    """Find the store of the same backbone that differs in the fewest components.

    Returns
    -------
    (Path, BackboneSpec, list of str) or None
        None if the backbone has no store.
    """
    candidates = [
        (differing(spec, other), folder, other)
        for folder, other in stores
        if other.backbone == spec.backbone
    ]
    if not candidates:
        return None
    names, folder, other = min(candidates, key=lambda c: (len(c[0]), c[1].name))
    return folder, other, names
