"""`Dataset`: paths, labels and whatever else is known of images, in one fixed order.

Labels stay here: they never enter a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import DatasetError
from .imagefile import Box

T = TypeVar("T")


@dataclass(frozen=True)
class Dataset:
    """Images and what is known of them, in one fixed order.

    Attributes
    ----------
    paths : sequence of str
        One file an image, absolute.
    labels : sequence of str or None
        The class of each image; None where no classes are known.
    split : sequence of str or None
        ``"train"``, ``"validation"`` or ``"test"`` for each image, if the data set says so.
    root : str
        The folder that the paths have in common.
    name : str
        For reports.
    attributes : mapping of str to sequence of str
        Further columns, one value an image, such as those of a CSV file.
    ids : sequence of str or None
        Content id of each image where it is known already; checked when a file is read.
    boxes : sequence of (int, int, int, int) or None
        The part of each photo that counts: left, top, right and bottom edge in pixels of
        the upright photo. A photo may stand there several times, once a box. None: whole
        photos.
    crop : str
        ``"whole"``, or ``"box"`` with the margin that `boxes` were given; in the cache key.
    """

    paths: Sequence[str]
    labels: Sequence[str] | None = None
    split: Sequence[str] | None = None
    root: str = ""
    name: str = "images"
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ids: Sequence[str] | None = None
    boxes: Sequence[Box | None] | None = None
    crop: str = "whole"

    def __post_init__(self) -> None:
        columns: dict[str, Sequence[Any] | None] = {
            "labels": self.labels,
            "split": self.split,
            "ids": self.ids,
            "boxes": self.boxes,
            **self.attributes,
        }
        for column, values in columns.items():
            if values is not None and len(values) != len(self.paths):
                raise DatasetError(
                    f"{len(self.paths)} paths came with {len(values)} values of {column!r}; "
                    "there must be one for each.",
                    column=column,
                )
        if not self.paths:
            raise DatasetError(f"The data set {self.name!r} holds no image.", root=self.root)
        if (self.boxes is None) != (self.crop == "whole"):
            raise DatasetError(
                f"crop={self.crop!r} does not go with {'no ' * (self.boxes is None)}boxes: it is "
                "'whole' without boxes, and says how they were made with them.",
                crop=self.crop,
            )

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def classes(self) -> list[str] | None:
        """The distinct labels, sorted; None without labels."""
        return None if self.labels is None else sorted(set(self.labels))

    def box(self, position: int) -> Box | None:
        """Return the part of a photo that counts; None for all of it."""
        return None if self.boxes is None else self.boxes[position]

    def take(self, rows: Iterable[int]) -> Dataset:
        """Return the data set of these rows, in the order given."""
        index = list(rows)

        def pick(values: Sequence[T]) -> list[T]:
            return [values[i] for i in index]

        return Dataset(
            paths=pick(self.paths),
            labels=None if self.labels is None else pick(self.labels),
            split=None if self.split is None else pick(self.split),
            root=self.root,
            name=self.name,
            attributes={name: pick(values) for name, values in self.attributes.items()},
            ids=None if self.ids is None else pick(self.ids),
            boxes=None if self.boxes is None else pick(self.boxes),
            crop=self.crop,
        )
