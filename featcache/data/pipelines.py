"""Images from the pipelines of TensorFlow, Keras and PyTorch, and from generators.

None of these libraries is imported: their objects are known by the names of their classes.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from .._io.wording import first_line
from ..errors import DatasetError
from ..images.formats import SUFFIXES
from ..images.image_file import BadImage, content_id
from .dataset import Dataset
from .elements import examples_of, is_of, library_classes, named_labels
from .file_index import FileIdentity
from .memory import ValueRange, bytes_of, is_image_in_memory
from .path_list import from_paths
from .sources import ImageSource, Reserve, no_limit
from .spool import Entry, Spool, SpoolSource

MAX_IMAGES = 10_000_000
_INFINITE = -1  # as tf.data says it
_PROBES = 8
_LONGEST_PATH = 4096
_LABELS = "labels= was given, but the data bring labels of their own. Leave out one of the two."
_ENDLESS = (
    "{0} has no end. Give it one before it is passed, such as with .take(n), or leave out "
    ".repeat()."
)


def from_pipeline(
    data: Any, labels: Any, value_range: ValueRange | None, folder: Path
) -> Dataset | None:
    """Return the data set of a pipeline; None if data are something else.

    Parameters
    ----------
    data : Any
        ``tf.data.Dataset``, Keras' ``PyDataset``, PyTorch's ``Dataset`` or ``DataLoader``, or a
        generator of images or of (image, label).
    labels : iterable, optional
        Labels of data without labels of their own.
    value_range : (float, float), optional
    folder : Path
        For the temporary file with the images of a stream.
    """
    if isinstance(data, io.IOBase):
        raise DatasetError("An open file is no list of images; pass its path, or [file.read()].")
    if is_image_in_memory(data) or isinstance(data, Mapping) or hasattr(data, "columns"):
        return None
    names = class_names(data)
    if hasattr(data, "as_numpy_iterator") and is_of(data, "tensorflow"):
        if int(data.cardinality()) == _INFINITE:
            raise DatasetError(_ENDLESS.format("The tf.data.Dataset"))
        return from_stream(data.as_numpy_iterator(), labels, value_range, folder, names)
    if any(name.rpartition(".")[2] in ("PyDataset", "Sequence") and _is_keras(name)
           for name in library_classes(data)):  # fmt: skip
        return from_stream(_keras_batches(data), labels, value_range, folder, names)
    if _has_random_access(data):
        return from_map(data, labels, value_range, names)
    if _is_stream(data):
        return _from_iterable(data, labels, value_range, folder, names)
    return None


def _is_keras(name: str) -> bool:
    return name.partition(".")[0] in ("keras", "tf_keras", "tensorflow")


def _has_random_access(data: Any) -> bool:
    """Return whether data have items by number, but are no list and no array."""
    if not hasattr(data, "__getitem__") or hasattr(data, "__array__"):
        return False
    if is_of(data, "torch") and not hasattr(data, "__iter__") and not hasattr(data, "__len__"):
        raise DatasetError(
            f"{type(data).__name__} has no length; give it a method __len__, or pass a DataLoader."
        )
    return hasattr(data, "__len__") and not hasattr(data, "__iter__")


def _is_stream(data: Any) -> bool:
    """Return whether data can be iterated, but are no list, array or table column."""
    listed = hasattr(data, "__getitem__") and not is_of(data, "torch")
    return hasattr(data, "__iter__") and not (
        listed or hasattr(data, "__array__") or isinstance(data, (set, frozenset, Dataset))
    )


def _from_iterable(
    data: Iterable[Any],
    labels: Any,
    value_range: ValueRange | None,
    folder: Path,
    names: Sequence[str] | None,
) -> Dataset | None:
    """Return the data set of a stream of images; of paths, as a list of them."""
    elements = _guarded(data, type(data).__name__)
    first = list(islice(elements, 1))
    if first and isinstance(first[0], (str, Path)):
        return from_paths(chain(first, elements), labels)
    return from_stream(chain(first, elements), labels, value_range, folder, names)


def _keras_batches(data: Any) -> Iterator[Any]:
    """Yield the batches of a ``PyDataset``, once each."""
    count = data.num_batches if hasattr(data, "num_batches") else len(data)
    if count is None:
        raise DatasetError(_ENDLESS.format(type(data).__name__))
    for batch in range(int(count)):
        yield data[batch]


def _guarded(data: Iterable[Any], what: str) -> Iterator[Any]:
    """Yield the elements of a stream; its own errors become a `DatasetError`."""
    count = 0
    try:
        for element in data:
            yield element
            count += 1
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(
            f"{what} failed after {count:,} elements: {type(error).__name__}: "
            f"{first_line(error, 200)}."
        ) from error


def from_stream(
    data: Iterable[Any],
    labels: Any,
    value_range: ValueRange | None,
    folder: Path,
    names: Sequence[str] | None = None,
) -> Dataset:
    """Return the data set of a stream, which is iterated here, once.

    Parameters
    ----------
    data : iterable
        Elements as `elements.examples_of` takes them.
    labels : iterable, optional
        Labels of a stream without labels of its own.
    value_range : (float, float), optional
        The values of black and white of floats.
    folder : Path
        For the temporary file with the images.
    names : sequence of str, optional
        Names of the classes 0, 1, 2 ...

    Raises
    ------
    DatasetError
        If the stream fails, gives no image, too many, or something else than images.
    StoreWriteError
        If the disk has no space for the images.
    """
    spool = Spool(folder)
    entries: list[Entry] = []
    found: list[Any] = []
    for element in _guarded(data, "The stream of images"):
        for image, label in examples_of(element):
            if not entries:
                check_image(image, value_range)
            if len(entries) == MAX_IMAGES:
                raise DatasetError(
                    f"The stream gives more than {MAX_IMAGES:,} images; is it one without an end?"
                )
            entries.append(_entry(image, value_range, spool))
            found.append(label)
    if not entries:
        raise DatasetError("The stream gave no image: it is empty, or was iterated before.")
    spool.finish()
    source = SpoolSource(spool, entries, [f"images[{i}]" for i in range(len(entries))])
    return labelled(source, found, labels, names)


def _entry(image: Any, value_range: ValueRange | None, spool: Spool) -> Entry:
    """Keep an image, or the reason why there is none."""
    try:
        if isinstance(image, BadImage):
            raise image
        data = bytes_of(image, value_range)
    except BadImage as bad:
        return Entry(FileIdentity(None, bad.reason))
    return spool.append(data)


def check_image(image: Any, value_range: ValueRange | None) -> None:
    """Raise `DatasetError` for a first image that is none, or whose range is unknown.

    Every other image would be quarantined for the same reason, after the whole stream was read.
    """
    path = _path_of(image)
    if path is not None:
        raise DatasetError(
            f"The data give paths, such as {path!r}; pass a list of them, with labels= ."
        )
    kind = getattr(getattr(image, "dtype", None), "kind", "")
    if value_range is None and kind in "fiu" and kind and image.dtype != np.uint8:
        raise DatasetError(
            f"The range of images of {image.dtype} is unknown. Pass value_range=(0, 255), (0, 1) "
            "or (-1, 1), the values of black and white; or give uint8.",
            received=str(image.dtype),
        )


def _path_of(image: Any) -> str | None:
    """Return a path that stands for an image, also as the bytes that ``tf.data`` gives for text."""
    if isinstance(image, (str, Path)):
        return str(image)
    if not isinstance(image, bytes) or len(image) > _LONGEST_PATH or b"\0" in image:
        return None
    path = os.fsdecode(image)
    return path if os.path.splitext(path)[1].lower() in SUFFIXES else None


def labelled(
    source: ImageSource, found: Iterable[Any], given: Any, names: Sequence[str] | None
) -> Dataset:
    """Return a data set with the labels that were found, or else given."""
    labels, categories = named_labels(found, names)
    if labels is not None and given is not None:
        raise DatasetError(_LABELS)
    chosen = given if labels is None else labels
    return Dataset(
        source.names, chosen, name="images", images=source,
        categories=categories if labels is not None else None,
    )  # fmt: skip


def class_names(data: Any) -> list[str] | None:
    """Return the names of classes that a pipeline gives, in the order of their numbers.

    Those are ``class_names`` of Keras, ``class_indices`` of its older iterators, and ``classes``
    of torchvision, also through PyTorch's ``DataLoader`` and ``Subset``.
    """
    for _ in range(8):
        for attribute in ("class_names", "classes"):
            names = getattr(data, attribute, None)
            if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
                renamed = getattr(data, "target_transform", None) is not None
                distinct = len(set(names)) == len(names) > 0
                return list(names) if distinct and not renamed else None
        indices = getattr(data, "class_indices", None)
        if isinstance(indices, dict) and sorted(indices.values()) == list(range(len(indices))):
            return sorted(indices, key=indices.__getitem__)
        if type(data).__name__ not in ("DataLoader", "Subset"):
            return None
        data = getattr(data, "dataset", None)
    return None


class MapSource(ImageSource):
    """Images of a data set with random access, which are read again when they are computed.

    Parameters
    ----------
    data : Any
        Has items by number, as `elements.examples_of` takes them, of one image each.
    rows : sequence of int
    found : sequence of FileIdentity
        Ids of the images of these rows.
    value_range : (float, float), optional
    lock : threading.Lock
        Held while an item is read: such data sets rarely expect several threads.
    """

    def __init__(
        self,
        data: Any,
        rows: Sequence[int],
        found: Sequence[FileIdentity],
        value_range: ValueRange | None,
        lock: threading.Lock,
    ) -> None:
        self._data, self._rows, self._found = data, rows, found
        self._value_range, self._lock = value_range, lock

    @property
    def names(self) -> Sequence[str]:
        """What the images are called, by their place in the data set."""
        return [f"images[{row}]" for row in self._rows]

    def read(self, position: int, reserve: Reserve = no_limit) -> bytes:
        """Return the bytes of an image, of an item that is asked for again."""
        with self._lock:
            image, _ = item_of(self._data, self._rows[position])
        try:
            return bytes_of(image, self._value_range, reserve)
        except BadImage as bad:  # not lasting: an image with an id was read before
            raise BadImage(bad.reason, lasting=False) from bad

    def take(self, rows: Sequence[int]) -> MapSource:
        """Return a source of some of the images."""
        return MapSource(
            self._data, [self._rows[i] for i in rows], [self._found[i] for i in rows],
            self._value_range, self._lock,
        )  # fmt: skip

    def identify(
        self, index: Path, workers: int, on_read: Callable[[int], object] = lambda _: None
    ) -> list[FileIdentity]:
        """Return the ids that were computed when the labels were read."""
        on_read(len(self))
        return list(self._found)

    def __len__(self) -> int:
        return len(self._rows)


def item_of(data: Any, row: int) -> tuple[Any, Any]:
    """Return image and label of an item; raise `BadImage` if the data set fails for it."""
    try:
        element = data[row]
    except Exception as error:
        reason = f"could not be loaded: {type(error).__name__}: {first_line(error, 200)}"
        raise BadImage(reason, lasting=False) from error
    examples = list(examples_of(element))
    if len(examples) != 1:
        raise DatasetError(
            f"Item {row} has {len(examples)} images; expected one. For batches, pass an iterator: "
            "(data[i] for i in range(len(data))).",
            row=row,
        )
    return examples[0]


def from_map(
    data: Any, labels: Any, value_range: ValueRange | None, names: Sequence[str] | None = None
) -> Dataset:
    """Return the data set of one with random access, whose items are read here once.

    Raises
    ------
    DatasetError
        If it is empty or too long, or if items change from one reading to the next, as with
        random augmentation.
    """
    count = len(data)
    if not 0 < count <= MAX_IMAGES:
        raise DatasetError(
            f"{type(data).__name__} has {count:,} items; expected 1 to {MAX_IMAGES:,}."
        )
    found: list[FileIdentity] = []
    own: list[Any] = []
    for row in range(count):
        label = None
        try:
            image, label = item_of(data, row)
            check_image(image, value_range)
            found.append(FileIdentity(content_id(bytes_of(image, value_range))))
        except BadImage as bad:
            found.append(FileIdentity(None, bad.reason))
        own.append(label)
    source = MapSource(data, range(count), found, value_range, threading.Lock())
    _check_repeatable(source, found, type(data).__name__)
    return labelled(source, own, labels, names)


def _check_repeatable(source: MapSource, found: Sequence[FileIdentity], name: str) -> None:
    """Raise `DatasetError` if some images have another id when they are read again."""
    for position in np.unique(np.linspace(0, len(found) - 1, _PROBES).astype(int)).tolist():
        try:
            again = content_id(source.read(position))
        except BadImage:
            continue
        if again != (found[position].image_id or again):
            raise DatasetError(
                f"{name} gives another image for item {position} each time, so that nothing "
                "could be stored. Remove random transforms from it; views= of featcache are "
                "augmented images that can be stored.",
                row=position,
            )
