"""Training and test part of a data set, and the images as contenders see them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache import Dataset
from featcache.errors import DatasetError, InvalidRequest
from featcache.toolkit import (
    BadImage,
    Box,
    MemoryBudget,
    Resize,
    content_ids,
    describe_conflicts,
    example_ids,
    get_logger,
    label_codes,
    label_conflicts,
    load_pixels,
    split_rows,
)

log = get_logger(__name__)

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """The training and test part of a labelled data set.

    Attributes
    ----------
    dataset : Dataset
        With labels. Unlabelled images are in neither part.
    ids : list of str
        Image id of each image; the empty string for one that cannot be read.
    train, test : ndarray of int64
        Positions in the data set. Copies of a photo are in the same part.
    name : str
        Such as ``"official"`` or ``"random 0.2, seed 0"``.
    """

    dataset: Dataset
    ids: list[str]
    train: Positions
    test: Positions
    name: str

    @property
    def classes(self) -> list[Any]:
        """The distinct labels, sorted, or in the order of a Categorical."""
        return self.dataset.classes or []

    @property
    def example_ids(self) -> list[str]:
        """Example id of each image: its image id, or a hash of image id and box."""
        return example_ids(self.ids, self.dataset.boxes)

    def codes(self, positions: Positions) -> NDArray[np.int64]:
        """Return the index into `classes` of the label at each position."""
        labels: Sequence[Any] = self.dataset.labels or []
        return label_codes([labels[i] for i in positions], self.classes).astype(np.int64)

    def without(self, unusable: set[str]) -> Split:
        """Return the split without some examples, given by their ids."""
        examples = self.example_ids

        def keep(positions: Positions) -> Positions:
            return positions[[examples[i] not in unusable for i in positions]]

        return Split(self.dataset, self.ids, keep(self.train), keep(self.test), self.name)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the split as JSON, by image ids, so that it survives moves and renames."""
        record = {
            "name": self.name,
            "train": [self.ids[i] for i in self.train],
            "test": [self.ids[i] for i in self.test],
        }
        Path(path).write_text(json.dumps(record, indent=1), "utf-8")


def make_split(
    dataset: Dataset,
    test_size: float | None = None,
    random_state: int = 0,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Split:
    """Split a data set, stratified by class, with copies of a photo in the same part.

    Unlabelled images are left out. The log names them and photos with several labels.

    Parameters
    ----------
    dataset : Dataset
        With labels.
    test_size : float, optional
        Fraction of the images in the test part, between 0 and 1 exclusive. Default: the data
        set's own split if it has one, with its validation part in the training part; else 0.2.
    random_state : int
        Seed of the split.
    cache_dir : path, optional
        Cache folder, for the file index.

    Returns
    -------
    Split

    Raises
    ------
    DatasetError
        If there are no labels or fewer than two classes, or the data set's own test part has
        no labels.
    InvalidRequest
        If `test_size` is out of range, or one part would be empty.
    """
    _check(dataset)
    ids = content_ids(dataset, cache_dir)
    conflicts = label_conflicts(example_ids(ids, dataset.boxes), dataset.paths, dataset.labels)
    if conflicts:
        log.warning("%s", describe_conflicts(conflicts))
    readable = np.array([i for i, image_id in enumerate(ids) if image_id], np.int64)
    groups = [ids[i] for i in readable]
    labels = [(dataset.labels or [])[i] for i in readable]
    parts = None if dataset.split is None else [dataset.split[int(i)] for i in readable]
    train, test, name = split_rows(groups, labels, parts, test_size, random_state)
    if all(labels[i] is None for i in test):
        raise DatasetError(
            f"The test part of {dataset.name!r} has no labels, so nothing can be scored on it. "
            "Give test_size= (--test-size) to split the labelled images at random.",
        )
    return Split(dataset, ids, readable[train], readable[test], name)


def load_split(
    path: str | os.PathLike[str],
    dataset: Dataset,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Split:
    """Read a split that `Split.save` wrote.

    Parameters
    ----------
    path : path
        The JSON file.
    dataset : Dataset
        Holds the images of the split, with labels.
    cache_dir : path, optional
        Cache folder, for the file index.

    Returns
    -------
    Split

    Raises
    ------
    DatasetError
        If an image of the split is not in the data set, or is in both parts.
    InvalidRequest
        If the file is not a split.
    """
    _check(dataset)
    ids = content_ids(dataset, cache_dir)
    try:
        record = json.loads(Path(path).read_text("utf-8"))
        name, parts = str(record["name"]), {p: set(record[p]) for p in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"{path} is not a saved split: {error}.", received=str(path)
        ) from error
    labelled = zip(ids, dataset.labels or (), strict=True)
    missing = (parts["train"] | parts["test"]) - {i for i, label in labelled if label is not None}
    both = parts["train"] & parts["test"]
    if missing or both:
        raise DatasetError(
            f"The split {path} does not fit: {len(missing)} of its images are not in "
            f"{dataset.name!r} or have no label there, {len(both)} are in both parts.",
            path=path,
            expected=sorted(missing),
        )
    known = [i for i, label in enumerate(dataset.labels or ()) if label is not None]
    train, test = (
        np.array([i for i in known if ids[i] in parts[part]], np.int64)
        for part in ("train", "test")
    )
    return Split(dataset, ids, train, test, name)


@dataclass(frozen=True)
class Images:
    """Images as contenders see them, without any information on their classes.

    Attributes
    ----------
    paths : tuple of str
        Files named by a number, in a folder of this evaluation: neither name, folder nor
        order depends on the class.
    photos : tuple of str
        Image id of each file. Contenders hold out by these, so that two boxes of one photo
        stay together.
    boxes : tuple of (int, int, int, int) or None
        The box of each example, (left, top, right, bottom); None for whole photos.
    crop : str
        How the boxes were made; see `featcache.Dataset`.
    """

    paths: tuple[str, ...]
    photos: tuple[str, ...]
    boxes: tuple[Box | None, ...] | None = None
    crop: str = "whole"

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Example id of each image: its image id, or a hash of image id and box."""
        return tuple(example_ids(self.photos, self.boxes))

    def dataset(self) -> Dataset:
        """Return the images as a data set without labels."""
        return Dataset(self.paths, ids=self.photos, boxes=self.boxes, crop=self.crop)

    def pixels(
        self, row: int, size: tuple[int, int], resize: Resize, budget: MemoryBudget | None = None
    ) -> NDArray[np.uint8]:
        """Decode, crop and resize one image to (h, w, 3), uint8.

        Concurrent threads share one `featcache.toolkit.MemoryBudget`.

        Raises
        ------
        featcache.toolkit.BadImage
            If it cannot be decoded.
        """
        box = None if self.boxes is None else self.boxes[row]
        return load_pixels(self.paths[row], size, resize, self.photos[row], box, budget)

    def __len__(self) -> int:
        return len(self.photos)

    def take(self, rows: Sequence[int] | Positions) -> Images:
        """Return the images of some rows, in that order."""
        boxes = None if self.boxes is None else tuple(self.boxes[i] for i in rows)
        paths, photos = (tuple(v[i] for i in rows) for v in (self.paths, self.photos))
        return Images(paths, photos, boxes, self.crop)


@contextmanager
def blind_images(split: Split, folder: Path | None = None) -> Iterator[dict[int, str]]:
    """Provide the images of a split under anonymous names, within the context.

    They are hard links where possible, else copies: a symbolic link would reveal the class
    folder.

    Yields
    ------
    dict of int to str
        Path by position in the data set.
    """
    positions = np.concatenate([split.train, split.test])
    order = np.random.default_rng(0).permutation(len(positions))
    with TemporaryDirectory(prefix="featcache-", dir=folder) as name:
        placed: dict[int, str] = {}
        for number, i in zip(order, map(int, positions), strict=True):
            ending = os.path.splitext(split.dataset.paths[i])[1].lower()
            target = os.path.join(name, f"{number:07d}{ending if ending.isascii() else ''}")
            _place(split.dataset, i, target)
            placed[i] = target
        yield placed


def images_of(split: Split, placed: Mapping[int, str], positions: Positions) -> Images:
    """Return the images at some positions, as contenders see them."""
    rows = [int(i) for i in positions]
    boxes = split.dataset.boxes
    return Images(
        tuple(placed[i] for i in rows),
        tuple(split.ids[i] for i in rows),
        None if boxes is None else tuple(boxes[i] for i in rows),
        split.dataset.crop,
    )


def _place(dataset: Dataset, position: int, target: str) -> None:
    """Give an image a file of another name; none if it can no longer be read."""
    if dataset.images is not None:
        with suppress(BadImage):
            data = dataset.source.read(position)
            Path(target).write_bytes(data)
        return
    source = dataset.paths[position]
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _check(dataset: Dataset) -> None:
    classes = dataset.classes
    if classes is None or len(classes) < 2:
        found = "no labels" if classes is None else f"one class, {classes[0]!r}"
        raise DatasetError(
            f"A comparison needs images of at least two classes, but {dataset.name!r} has {found}. "
            "Use one folder per class, or a CSV file with the columns path and label.",
            received=classes,
        )
