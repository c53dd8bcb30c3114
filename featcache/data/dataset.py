"""`Dataset`: paths, labels and further columns of images, in a fixed order.

Labels are part of data sets and features, and are never written to a store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from numpy.typing import NDArray
from PIL import Image

from .._io.html import facts_table
from .._io.wording import format_count, format_values
from ..errors import DatasetError
from ..images.decode import Pixels, Resize, crop, decode, pixels_of
from ..images.image_file import Box, check_content
from ..images.limits import MemoryBudget
from ..images.resize_rule import WHOLE
from .columns import column_array
from .labels import categories_of, check_categories, classes_of, normalise_labels
from .sources import FileSource, ImageSource

T = TypeVar("T")


# No `==`: columns are arrays, whose comparison has no single truth value.
@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Paths, labels and further columns of images, in a fixed order.

    Attributes
    ----------
    paths : sequence of str
        Absolute path of each image, or its name if it is not a file.
    labels : sequence of str, int, bool or float, or None
        Label of each image, all of one type; None for an unlabelled image (NaN, ``pandas.NA``
        and blank strings become None). None instead of a sequence: no labels.
    split : sequence of str or None
        The official split: ``"train"``, ``"validation"`` or ``"test"`` for each image.
    root : str
        The common folder of the paths.
    name : str
        Name of the data set in reports.
    attributes : mapping of str to ndarray
        Further columns, one value per image, such as those of a CSV file, each with its own
        dtype. Sequences become arrays, of dtype object unless they are all numbers or all bools.
    ids : sequence of str or None
        Image id of each image if known; verified when a file is read.
    boxes : sequence of (int, int, int, int) or None
        The part of each image to use: left, top, right and bottom edge in pixels of the upright
        image. An image with several boxes occurs several times. None: whole images.
    crop : str
        ``"whole"``, or ``"box"`` with the margin of `boxes`, as in the cache key.
    categories : sequence or None
        All classes in order, including those without an image; taken from `labels` if these are
        a pandas Categorical. None: the natural order of the labels.
    ignored : sequence of str
        Files of the folder that are not images; see `featcache.load_dataset`.
    images : ImageSource or None
        What the images are read from, if not from files: then `paths` are their names.

    Raises
    ------
    DatasetError
        If columns differ in length, there is no image, or labels are of several types.
    """

    paths: Sequence[str]
    labels: Sequence[Any] | None = None
    split: Sequence[str] | None = None
    root: str = ""
    name: str = "images"
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    ids: Sequence[str] | None = None
    boxes: Sequence[Box | None] | None = None
    crop: str = WHOLE
    categories: Sequence[Any] | None = None
    ignored: Sequence[str] = ()
    images: ImageSource | None = None

    def __post_init__(self) -> None:
        self._normalise()
        columns: dict[str, Any] = {
            "labels": self.labels,
            "split": self.split,
            "ids": self.ids,
            "boxes": self.boxes,
            "images": self.images,
            **self.attributes,
        }
        for column, values in columns.items():
            if values is not None and len(values) != len(self.paths):
                raise DatasetError(
                    f"{format_count(len(self.paths), 'path')} came with "
                    f"{format_count(len(values), 'value')} of {column!r}; "
                    "there must be one for each.",
                    received=column,
                )
        if not self.paths:
            raise DatasetError(f"The data set {self.name!r} has no images.", path=self.root)
        if (self.boxes is None) != (self.crop == WHOLE):
            raise DatasetError(
                f"crop={self.crop!r} does not go with {'no ' * (self.boxes is None)}boxes: it is "
                "'whole' without boxes, and says how they were made with them.",
                received=self.crop,
            )

    def _normalise(self) -> None:
        """Convert labels and columns to the documented types."""
        labels, categories = self.labels, self.categories
        if labels is not None:
            categories = categories_of(labels) if categories is None else categories
            labels = normalise_labels(labels)
            categories = None if categories is None else check_categories(labels, categories)
        else:
            categories = None
        columns = {name: column_array(values) for name, values in self.attributes.items()}
        for name, value in (("labels", labels), ("categories", categories)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "attributes", columns)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Dataset {self.name!r}: {facts}>"

    def _repr_html_(self) -> str:
        return facts_table(f"Dataset {self.name!r}", self._facts())

    def _facts(self) -> dict[str, str]:
        facts = {"images": f"{len(self):,}"}
        if self.classes is not None:
            facts["classes"] = f"{len(self.classes):,} ({format_values(self.classes)})"
        if self.unlabelled:
            facts["unlabelled"] = f"{self.unlabelled:,}"
        if self.split is not None:
            parts = {part: list(self.split).count(part) for part in dict.fromkeys(self.split)}
            facts["split"] = ", ".join(f"{part} {count:,}" for part, count in parts.items())
        if self.attributes:
            facts["columns"] = format_values(
                [f"{k} ({v.dtype})" for k, v in self.attributes.items()], str
            )
        if self.boxes is not None:
            facts["crop"] = self.crop
        if self.ignored:
            facts["ignored files"] = f"{len(self.ignored):,}"
        return facts

    @property
    def classes(self) -> list[Any] | None:
        """`categories`, or the distinct labels in their natural order; None without labels."""
        return None if self.labels is None else classes_of(self.labels, self.categories)

    @property
    def unlabelled(self) -> int:
        """Number of images without a label in a data set with labels; else 0."""
        return 0 if self.labels is None else sum(label is None for label in self.labels)

    def box(self, position: int) -> Box | None:
        """Return the box of an image by its position; None for the whole image."""
        return None if self.boxes is None else self.boxes[position]

    @property
    def source(self) -> ImageSource:
        """What the images are read from."""
        return FileSource(self.paths, self.root) if self.images is None else self.images

    def image(self, position: int) -> Image.Image:
        """Return an image by its position, as `featcache.extract` sees it before it is resized.

        Returns
        -------
        PIL.Image.Image
            Upright, mode "RGB", cropped to its box.

        Raises
        ------
        featcache.toolkit.BadImage
            If it cannot be read or decoded, exceeds a limit, or its box lies outside it.
        """
        with MemoryBudget().reservation() as held:
            data = self.source.read(position, held.for_file)
            return crop(decode(data, held), self.box(position))

    def pixels(self, position: int, size: tuple[int, int], how: Resize, expected_id: str) -> Pixels:
        """Return an image, which must have an image id, resized to (h, w, 3), uint8.

        Raises
        ------
        featcache.toolkit.BadImage
            As `image`, and if it has another id.
        """
        with MemoryBudget().reservation() as held:
            data = check_content(self.source.read(position, held.for_file), expected_id)
            return pixels_of(data, size, how, self.box(position), held)

    def take(self, rows: Iterable[int]) -> Dataset:
        """Return a data set of the given row positions, in the given order."""
        index = list(rows)

        def pick(values: Sequence[T]) -> list[T]:
            return [values[i] for i in index]

        return Dataset(
            paths=pick(self.paths),
            labels=None if self.labels is None else pick(self.labels),
            split=None if self.split is None else pick(self.split),
            root=self.root,
            name=self.name,
            attributes={name: values[index] for name, values in self.attributes.items()},
            ids=None if self.ids is None else pick(self.ids),
            boxes=None if self.boxes is None else pick(self.boxes),
            crop=self.crop,
            categories=self.categories,
            ignored=self.ignored,
            images=None if self.images is None else self.images.take(index),
        )
