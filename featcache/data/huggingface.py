"""Data sets of the library ``datasets`` by Hugging Face.

The library is not imported: an object of it that is passed brings its own classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import DatasetError
from ..images.image_file import BadImage
from .cells import RESERVED, bytes_of_cell, choose_column, warn_of_unread_labels
from .columns import column_array
from .dataset import Dataset
from .elements import LABEL_KEYS, is_of, library_classes, named_labels
from .folder import split_of
from .memory import ValueRange
from .pipelines import from_stream
from .sources import ImageSource, Reserve, no_limit

_LABELS = "labels= goes with an array or a list of images; this data set brings its own."
_SCALARS = ("int", "uint", "float", "bool", "string", "large_string")


def from_hugging_face(
    data: Any, labels: Any, value_range: ValueRange | None, folder: Path
) -> Dataset | None:
    """Return the data set of a ``Dataset``, ``DatasetDict`` or ``IterableDataset``.

    Parameters
    ----------
    data : Any
        With a column of images. Their files are not decoded here, so that a photo is the same
        image as in a folder.
    labels : None
        Such data bring their own labels.
    value_range : (float, float), optional
        For a stream of unknown columns.
    folder : Path
        For the temporary file with the images of an ``IterableDataset``.

    Returns
    -------
    Dataset or None
        None for an object of another library.

    Raises
    ------
    DatasetError
        If it has no column of images, or several that may be meant, or unknown splits.
    """
    kinds = library_classes(data)
    if "datasets.arrow_dataset.Dataset" in kinds:
        parts = {"": data}
    elif "datasets.dataset_dict.DatasetDict" in kinds:
        parts = dict(data)
    elif "datasets.iterable_dataset.IterableDataset" in kinds:
        _refuse_labels(labels)
        return _from_stream(data, value_range, folder)
    elif "datasets.dataset_dict.IterableDatasetDict" in kinds:
        raise DatasetError(
            f"Pass one part of the streamed data set: data[{next(iter(data), 'train')!r}].",
            received=list(data),
        )
    else:
        return None
    _refuse_labels(labels)
    return _from_parts(parts)


def _refuse_labels(labels: Any) -> None:
    if labels is not None:
        raise DatasetError(_LABELS)


def _from_parts(parts: Mapping[str, Any]) -> Dataset:
    """Return the data set of one part without a name, or of several."""
    if not parts:
        raise DatasetError("The data set has no parts.")
    splits = {name: split_of(name) for name in parts if name}
    unknown = sorted(name for name, split in splits.items() if split is None)
    if unknown:
        raise DatasetError(
            f"The parts {', '.join(map(repr, unknown))} are no train, validation or test. Pass one "
            f"part, such as data[{unknown[0]!r}], or rename or remove them.",
            received=list(parts),
        )
    first = next(iter(parts.values()))
    column = image_column(first.features)
    label, names = label_column(first.features)
    for name, part in parts.items():
        if column not in part.features or (label and label not in part.features):
            raise DatasetError(
                f"The part {name!r} has the columns {list(part.features)}; expected those of the "
                f"first part, with {column!r}.",
                received=list(part.features),
            )
    encoded = [_encoded(part, column) for part in parts.values()]
    rows = [(number, row) for number, part in enumerate(encoded) for row in range(len(part))]
    titles = [name or "images" for name in parts]
    source = HuggingFaceSource(encoded, column, rows, [f"{titles[n]}[{i}]" for n, i in rows])
    labels: list[Any] | None = None
    categories = None
    if label is None:
        warn_of_unread_labels(first.features, "The data set")
    else:
        labels, categories = named_labels(_values(encoded, label), names)
    split = [str(splits[name]) for name, part in parts.items() if name for _ in range(len(part))]
    others = {
        name: _attribute(encoded, name, feature)
        for name, feature in first.features.items()
        if name not in (column, label, *RESERVED) and _is_scalar(feature)
        and all(name in part.features for part in parts.values())
    }  # fmt: skip
    return Dataset(
        source.names, labels, split or None, name=_name_of(first), attributes=others,
        categories=categories, images=source,
    )  # fmt: skip


def _name_of(part: Any) -> str:
    name = getattr(getattr(part, "info", None), "dataset_name", None)
    return name if isinstance(name, str) and name else "images"


def _encoded(part: Any, column: str) -> Any:
    """Return a part whose images are the bytes of files, without formats and transforms."""
    feature = part.features[column]
    plain = part.with_format(None)
    return plain.cast_column(column, type(feature)(decode=False)) if _is_image(feature) else plain


def _values(parts: Sequence[Any], column: str) -> list[Any]:
    return [value for part in parts for value in part.select_columns([column])[:][column]]


def _attribute(parts: Sequence[Any], column: str, feature: Any) -> NDArray[Any]:
    values = _values(parts, column)
    names = getattr(feature, "names", None)
    if names is None:
        return column_array(values)
    return column_array([None if v is None or v < 0 else names[v] for v in values])


def _is_image(feature: Any) -> bool:
    return is_of(feature, "datasets") and type(feature).__name__ == "Image"


def _is_scalar(feature: Any) -> bool:
    dtype = getattr(feature, "dtype", None)
    return isinstance(dtype, str) and dtype.startswith(_SCALARS)


def image_column(features: Mapping[str, Any]) -> str:
    """Return the column of images.

    Raises
    ------
    DatasetError
        If there is none, or several may be meant.
    """
    found = [name for name, feature in features.items() if _is_image(feature)]
    binary = [name for name, feature in features.items() if _is_binary(feature)]
    column = choose_column(list(features), found or binary, "image")
    if column is None:
        raise DatasetError(
            f"The data set has no column of images; its columns are {list(features)}. Make one of "
            "paths or bytes with data.cast_column('image', datasets.Image()).",
            received=list(features),
        )
    return column


def _is_binary(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def label_column(features: Mapping[str, Any]) -> tuple[str | None, list[str] | None]:
    """Return the column of labels and the names of its classes, or None for both.

    Raises
    ------
    DatasetError
        If several may be meant.
    """
    classes = {
        name: list(feature.names)
        for name, feature in features.items()
        if type(feature).__name__ == "ClassLabel"
    }
    usual = [name for name in LABEL_KEYS if name in features and _is_scalar(features[name])]
    column = choose_column(list(features), list(classes) or usual, "label")
    return column, None if column is None else classes.get(column)


class HuggingFaceSource(ImageSource):
    """Images of one or several ``datasets.Dataset``.

    Parameters
    ----------
    parts : sequence of datasets.Dataset
        Whose images are not decoded.
    column : str
    rows : sequence of (int, int)
        Part and row of each image.
    names : sequence of str
    """

    def __init__(
        self, parts: Sequence[Any], column: str, rows: Sequence[tuple[int, int]],
        names: Sequence[str],
    ) -> None:  # fmt: skip
        self._parts, self._column, self._rows, self._names = parts, column, rows, names

    @property
    def names(self) -> Sequence[str]:
        """What the images are called: ``"train[0]"``, for example."""
        return self._names

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the content of an image's file."""
        part, row = self._rows[position]
        try:
            cell = self._parts[part][row][self._column]
        except Exception as error:  # of Arrow, for a damaged file
            raise BadImage(f"could not be loaded: {error}", lasting=False) from error
        try:
            return bytes_of_cell(cell, reserve)
        except BadImage as bad:  # not lasting: an image with an id was read before
            raise BadImage(bad.reason, lasting=False) from bad

    def take(self, rows: Sequence[int]) -> HuggingFaceSource:
        """Return a source of some of the images."""
        return HuggingFaceSource(
            self._parts, self._column, [self._rows[i] for i in rows], [self._names[i] for i in rows]
        )


def _from_stream(data: Any, value_range: ValueRange | None, folder: Path) -> Dataset:
    """Return the data set of an ``IterableDataset``."""
    if data.features is None:  # known only after it was iterated: images as they come
        return from_stream(data, None, value_range, folder)
    column = image_column(data.features)
    label, names = label_column(data.features)
    if _is_image(data.features[column]):
        data = data.cast_column(column, type(data.features[column])(decode=False))
    return from_stream(_cells(data, column, label), None, value_range, folder, names)


def _cells(data: Any, column: str, label: str | None) -> Iterator[tuple[Any, Any]]:
    for row in data:
        try:
            image: Any = bytes_of_cell(row[column])
        except BadImage as bad:
            image = bad
        yield image, None if label is None else row[label]
