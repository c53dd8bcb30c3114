"""Ids of the images to keep, as each store names its rows: whole images or boxes of them."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._io.wording import format_count
from ..backbones.spec import BackboneSpec
from ..data.boxes import COLUMNS, cropped, widened
from ..data.content_ids import content_ids
from ..data.dataset import Dataset
from ..datasets.load import load_dataset
from ..errors import DatasetError, InvalidRequest
from ..images.image_file import Box, example_id, example_ids
from ..images.resize_rule import MARGIN_DIGITS, WHOLE, format_box, parse_box, parse_resize
from ..store.removal import Kept


class KeptImages:
    """Data sets whose rows are kept.

    Parameters
    ----------
    data : sequence
        Anything that `featcache.load_dataset` accepts.
    cache : Path
        The cache folder, which has the index of image ids.

    Raises
    ------
    DatasetError
        If a data set does not exist or cannot be used.
    InvalidRequest
        If a file cannot be read, so that its row cannot be identified.
    """

    def __init__(self, data: Sequence[Any], cache: Path) -> None:
        self._cache = cache
        self._data = [load_dataset(some, cache_dir=cache) for some in data]
        self._contents = [self._read(dataset) for dataset in self._data]
        self._known: dict[str, set[str] | None] = {}

    def ids_for(self, spec: BackboneSpec) -> set[str] | None:
        """Return the example ids of all images under a store's crop.

        Returns
        -------
        set of str or None
            None if a data set does not define the boxes of this crop.

        Raises
        ------
        DatasetError
            If a box is invalid.
        """
        rule = parse_resize(spec.resize)
        if rule is None:
            return None
        if rule.crop not in self._known:
            self._known[rule.crop] = self._ids(rule.crop)
        return self._known[rule.crop]

    def _ids(self, crop: str) -> set[str] | None:
        found: set[str] = set()
        for dataset, contents in zip(self._data, self._contents, strict=True):
            if crop == WHOLE:
                found |= set(contents) | self._ignored(dataset)
            elif dataset.crop == crop:
                found |= set(example_ids(contents, dataset.boxes))
            else:
                boxes, margin = _plain_boxes(dataset), parse_box(crop)
                if boxes is None or margin is None:
                    return None
                found |= {
                    example_id(content, box)
                    for content, plain in zip(contents, boxes, strict=True)
                    for box in _widened(plain, margin)
                }
        return found

    def _read(self, dataset: Dataset) -> list[str]:
        contents = content_ids(dataset, self._cache)
        unreadable = [p for p, c in zip(dataset.paths, contents, strict=True) if not c]
        if unreadable:
            raise InvalidRequest(
                f"{format_count(len(unreadable), 'file')} of {dataset.name} cannot be read (first: "
                f"{unreadable[0]}), so that their rows cannot be identified. Nothing was removed; "
                "make the files readable or remove them from the data set.",
                received=unreadable,
            )
        return contents

    def _ignored(self, dataset: Dataset) -> set[str]:
        """Return the ids of files that this installation cannot decode.

        With other decoders installed they may have been embedded and have rows.
        """
        paths = [path for path in dataset.ignored if not path.endswith(os.sep)]
        if not paths:
            return set()
        files = Dataset(paths, root=dataset.root, name=dataset.name)
        return set(content_ids(files, self._cache)) - {""}


def kept_ids(
    name: str, spec: BackboneSpec, keep_ids: Collection[str] | None, images: KeptImages | None
) -> set[str] | Kept:
    """Return the ids to keep in a store, or why they are unknown.

    Parameters
    ----------
    name : str
        Name of the store.
    spec : BackboneSpec
    keep_ids : collection of str, optional
        Example ids.
    images : KeptImages, optional
        Whose ids are kept as well.
    """
    kept = set(keep_ids or ())
    if images is None:
        return kept
    try:
        more = images.ids_for(spec)
    except DatasetError as error:
        return Kept(name, f"it has rows of boxes, and those of the data cannot be read: {error}")
    if more is None:
        return Kept(name, "it has rows of boxes that the data to keep do not define")
    return kept | more


def _plain_boxes(dataset: Dataset) -> Sequence[Box | None] | None:
    """Return the boxes of a data set without a margin; None if it does not define them."""
    if dataset.crop == format_box(0):
        return dataset.boxes
    if dataset.boxes is not None or not set(COLUMNS) <= set(dataset.attributes):
        return None
    return cropped(replace(dataset, boxes=None), "box").boxes


def _widened(box: Box | None, margin: float) -> Iterator[Box | None]:
    """Yield a box widened by every margin that is rounded to this value in the key.

    The key has six digits of the margin: a box of 15 pixels is one pixel wider with the margin
    0.166667 than with 1/6.
    """
    if box is None or not margin:
        yield box
        return
    half = 0.5 * 10.0 ** (math.floor(math.log10(margin)) + 1 - MARGIN_DIGITS)
    wider = [widened(box, margin + step) for step in (-half, 0.0, half)]
    sides = {(box[0], box[2]) for box in wider}
    ends = {(box[1], box[3]) for box in wider}
    for left, right in sides:
        for top, bottom in ends:
            yield left, top, right, bottom
