"""What pipelines yield, taken apart: images and labels, one by one or in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .._io.wording import format_count
from ..errors import DatasetError

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "jpg", "png")
LABEL_KEYS = ("label", "labels", "target", "targets")
_SHAPES = "(height, width, 3), or (n, height, width, 3) in batches"


def library_classes(value: object) -> set[str]:
    """Return ``module.name`` of an object's classes, by which a library's objects are known.

    The library is not imported for that.
    """
    return {f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__}


def is_of(value: object, library: str) -> bool:
    """Return whether a class of an object is defined in a library."""
    return any(name.partition(".")[0] == library for name in library_classes(value))


def examples_of(element: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the images of an element with their labels, None without one.

    Parameters
    ----------
    element : Any
        An image or a batch of images; ``(images, labels)``; ``(images, labels, weights)``; or a
        dictionary with an image and perhaps a label. Tensors become arrays.

    Raises
    ------
    DatasetError
        For anything else, or labels that are not one per image.

    Examples
    --------
    >>> [label for _, label in examples_of((np.zeros((2, 8, 8, 3)), [[0, 1], [1, 0]]))]
    [1, 0]
    """
    images, labels = _parts(element)
    if isinstance(images, (list, tuple)):
        batch: Sequence[Any] | None = [to_array(image) for image in images]
    else:
        images = to_array(images)
        batch = _batch(images, labels)
    if batch is None:
        yield images, _label(labels)
        return
    yield from zip(batch, _labels(labels, len(batch)), strict=True)


def _parts(element: Any) -> tuple[Any, Any]:
    """Return images and labels of an element."""
    if isinstance(element, Mapping):
        return _value(element, IMAGE_KEYS, required=True), _value(element, LABEL_KEYS)
    if isinstance(element, (tuple, list)):
        if not 1 <= len(element) <= 3:
            raise DatasetError(
                f"The data give {len(element)} values at a time; expected (image, label).",
                received=len(element),
            )
        return element[0], element[1] if len(element) > 1 else None
    return element, None


def _value(element: Mapping[Any, Any], keys: Sequence[str], required: bool = False) -> Any:
    found = [key for key in keys if key in element]
    if len(found) == 1:
        return element[found[0]]
    if not found and not required:
        return None
    what = "an image" if required else "a label"
    raise DatasetError(
        f"The data give dictionaries with the keys {', '.join(map(repr, element))}; expected "
        f"{what} under one of {', '.join(map(repr, keys))}.",
        received=list(element),
        expected=list(keys),
    )


def to_array(value: Any) -> Any:
    """Return a tensor as an array with the channels last; other values unchanged.

    A tensor of PyTorch has its channels first if its first axis has the length 1 or 3 and its last
    has not: ``(c, h, w)``, or ``(n, c, h, w)``.

    Raises
    ------
    DatasetError
        If it cannot be converted, or either axis may be that of the channels.
    """
    if isinstance(value, (np.ndarray, bytes, str, Image.Image)) or not hasattr(value, "__array__"):
        return value
    tensor = is_of(value, "torch")
    if tensor and hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except Exception as error:  # of the library, such as for a number format that NumPy lacks
        raise DatasetError(
            f"A {type(value).__name__} of the data cannot be converted to an array: {error}"
        ) from error
    if not array.ndim:
        return array.item()
    return _channels_last(array) if tensor else array


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim not in (3, 4) or array.shape[-3] not in (1, 3):
        return array
    if array.shape[-1] in (1, 3):
        raise DatasetError(
            f"In a tensor of shape {array.shape}, the first or the last axis may be that of the "
            "channels. Move it to the end, and pass NumPy arrays.",
            received=array.shape,
        )
    return np.moveaxis(array, -3, -1)


def _batch(images: Any, labels: Any) -> Sequence[Any] | None:
    """Return a batch as a sequence of images; None for one image."""
    if not isinstance(images, np.ndarray):
        return None
    if images.ndim > 4:
        raise DatasetError(
            f"The data give arrays of shape {images.shape}; expected {_SHAPES}.",
            received=images.shape,
        )
    if images.ndim == 4 or (images.ndim == 1 and images.dtype == object):
        return images  # type: ignore[return-value]
    if images.ndim == 3 and images.shape[2] not in (1, 3) and labels is not None:
        # Grey images without an axis of channels: then there is a label for each.
        shape = np.shape(to_array(labels))
        if shape and shape[0] == images.shape[0]:
            return images  # type: ignore[return-value]
    return None


def _labels(labels: Any, count: int) -> Sequence[Any]:
    """Return one label for each image of a batch."""
    if labels is None:
        return [None] * count
    values = to_array(labels)
    several = isinstance(values, (list, tuple)) or np.ndim(values) > 0
    if not several or len(values) != count:
        received = format_count(len(values), "label") if several else "a single label"
        raise DatasetError(
            f"A batch of {count} images came with {received}; expected one for each.",
            received=count,
        )
    return [_label(value) for value in values]


def _label(value: Any) -> Any:
    """Return the label of one image; the class of a one-hot row."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    array = to_array(value)
    if isinstance(array, Mapping) or not np.shape(array) or np.size(array) == 1:
        item = array.item() if isinstance(array, (np.ndarray, np.generic)) else array
        item = item[0] if isinstance(item, (list, tuple)) else item
        return item.decode("utf-8", "replace") if isinstance(item, bytes) else item
    row = np.asarray(array)
    if row.ndim != 1 or row.dtype.kind not in "biuf" or not _is_one_hot(row):
        raise DatasetError(
            f"An image has {row.size} values as its label, which are not one-hot: {row.tolist()}. "
            "Expected one class per image.",
            received=row.tolist(),
        )
    return int(row.argmax())


def _is_one_hot(row: NDArray[Any]) -> bool:
    return bool(np.count_nonzero(row) == 1 and row.max() == 1)


def named_labels(
    labels: Iterable[Any], names: Sequence[str] | None
) -> tuple[list[Any] | None, list[str] | None]:
    """Return labels, and the classes in order; None if no image has a label.

    Parameters
    ----------
    labels : iterable
        None for an image without a label.
    names : sequence of str, optional
        Names of the classes 0, 1, 2 ...; -1 stands for no label.

    Raises
    ------
    DatasetError
        If a label is no position in `names`.

    Examples
    --------
    >>> named_labels([1, 0.0, -1], ["cat", "dog"])
    (['dog', 'cat', None], ['cat', 'dog'])
    >>> named_labels([1.0, 0.0], None)
    ([1, 0], None)
    """
    values: list[Any] = [
        int(v) if isinstance(v, float) and v.is_integer() else v for v in labels
    ]  # binary labels of Keras are floats
    if all(value is None for value in values):
        return None, None
    if names is None or not all(v is None or type(v) is int for v in values):
        return values, None
    wrong = next((v for v in values if v is not None and not -1 <= v < len(names)), None)
    if wrong is not None:
        raise DatasetError(
            f"A label is {wrong}, but the data name {len(names)} classes: 0 to {len(names) - 1}.",
            received=wrong,
        )
    return [None if v is None or v < 0 else names[v] for v in values], list(names)
