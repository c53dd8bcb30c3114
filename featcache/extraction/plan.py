"""The plan of an extraction, and its explanation.

Pure functions over content ids: nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from .._io.wording import format_count
from ..backbones.spec import BackboneSpec, differing
from ..data.file_index import FileIdentity


@dataclass(frozen=True)
class Plan:
    """Which images of a data set are stored, to compute or quarantined.

    Attributes
    ----------
    stored : int
        Number of images whose embedding is stored.
    compute : sequence of (int, str)
        Position in the data set and example id of each image to compute. An example that
        occurs several times is computed once.
    quarantined : mapping of int to str
        Position in the data set and reason of each image that cannot be used.
    """

    stored: int
    compute: Sequence[tuple[int, str]]
    quarantined: Mapping[int, str]


def make_plan(
    files: Sequence[FileIdentity],
    stored: Collection[str],
    failed: Mapping[str, str],
    *,
    retry_failed: bool = False,
) -> Plan:
    """Sort images into stored, to compute and quarantined.

    Parameters
    ----------
    files : sequence of FileIdentity
        Example id, or reason of the failure, of each image.
    stored : collection of str
        Example ids that have a row.
    failed : mapping of str to str
        Example id and reason of the images that failed in earlier extractions.
    retry_failed : bool
        Compute the images in `failed` again.

    Returns
    -------
    Plan
    """
    n_stored = 0
    compute: dict[str, int] = {}
    quarantined: dict[int, str] = {}
    for position, file in enumerate(files):
        if file.image_id is None:
            quarantined[position] = file.reason or "cannot be read"
        elif file.image_id in stored:
            n_stored += 1
        elif file.image_id in failed and not retry_failed:
            quarantined[position] = failed[file.image_id]
        else:
            compute.setdefault(file.image_id, position)
    return Plan(n_stored, [(p, image_id) for image_id, p in compute.items()], quarantined)


@dataclass(frozen=True)
class Explanation:
    """The plan of an extraction, and the reason where nothing is stored yet.

    ``str()`` of it is one line of text.

    Attributes
    ----------
    images, quarantined : int
        Numbers of images.
    stored, to_compute : int
        Numbers of views of images. One that occurs several times is computed once.
    folder : Path or str
        Folder of the store; its URL in an object store.
    exists : bool
        Whether the store exists.
    spec : BackboneSpec
    nearest : PurePath or None
        If the store does not exist: the store of the same backbone whose key differs in the
        fewest components.
    differs_in : list of str
        The components of the key in which `nearest` differs.
    values : dict of str to (str, str)
        For each of them, the values of `nearest` and of this extraction, human-readable.
    views : int
        Number of views of each image.
    """

    images: int
    stored: int
    to_compute: int
    quarantined: int
    folder: Path | str
    exists: bool
    spec: BackboneSpec
    nearest: PurePath | None = None
    differs_in: list[str] = field(default_factory=list)
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    views: int = 1

    def __str__(self) -> str:
        views = f", {self.views} views of each" if self.views > 1 else ""
        line = (
            f"{format_count(self.images, 'image')}{views}: {self.stored} stored, "
            f"{self.to_compute} to compute, {self.quarantined} quarantined; store {self.folder}"
        )
        if self.exists:
            return line
        if self.nearest is None:
            return f"{line} (new: no store of {self.spec.backbone} yet)"
        changes = "; ".join(self._change(name) for name in self.values)
        return f"{line} (new: the nearest store, {self.nearest.name}, differs in {changes})"

    def _change(self, name: str) -> str:
        """Describe how a component differs; two values may have the same description."""
        stored, requested = self.values[name]
        if stored != requested:
            return f"{name} ({stored} there, {requested} requested)"
        if name == "weights":
            return "weights of other layers" if "layer" in self.values else "other weights"
        return f"{name} (another one named {requested})"


def nearest_store(
    spec: BackboneSpec, stores: Sequence[tuple[PurePath, BackboneSpec]]
) -> tuple[PurePath, BackboneSpec, list[str]] | None:
    """Find the store of the same backbone whose key differs in the fewest components.

    Returns
    -------
    (PurePath, BackboneSpec, list of str) or None
        Its folder, its spec and the components that differ; None if the backbone has no store.
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
