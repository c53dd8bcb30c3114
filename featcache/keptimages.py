"""The images that stay, named as each store names its rows: whole photos, or boxes of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .dataset import Dataset
from .errors import DatasetError, InvalidRequest
from .fileindex import content_ids
from .imagefile import example_ids
from .loading import load_dataset
from .specs import BackboneSpec

_CROP = re.compile(r"(?P<crop>.+)-[a-z]+-[a-z]+")
_BOX = re.compile(r"box(?:\+(?P<margin>[0-9.e+-]+))?")


class KeptImages:
    """Data sets of which each store keeps all rows.

    Parameters
    ----------
    data : sequence
        Whatever `featcache.load_dataset` takes.
    cache : Path
        The cache folder, where content ids are remembered.
    """

    def __init__(self, data: Sequence[Any], cache: Path) -> None:
        self._data, self._cache = data, cache
        self._known: dict[str, set[str] | None] = {}

    def ids_for(self, spec: BackboneSpec) -> set[str] | None:
        """Return the example ids of all images under a store's crop.

        Returns
        -------
        set of str or None
            None if a data set does not say which boxes these are.

        Raises
        ------
        InvalidRequest
            If a file cannot be read: its row could not be told from others.
        """
        match = _CROP.fullmatch(spec.resize)
        crop = match["crop"] if match else "whole"
        if crop not in self._known:
            self._known[crop] = self._ids(crop)
        return self._known[crop]

    def _ids(self, crop: str) -> set[str] | None:
        found: set[str] = set()
        for data in self._data:
            dataset = self._load(data, crop)
            if dataset is None:
                return None
            contents = content_ids(dataset, self._cache)
            unreadable = [p for p, c in zip(dataset.paths, contents, strict=True) if not c]
            if unreadable:
                raise InvalidRequest(
                    f"{len(unreadable)} files of {dataset.name} cannot be read (the first is "
                    f"{unreadable[0]}), so their rows could not be told from others. Nothing was "
                    "removed.",
                    received=unreadable,
                )
            found |= set(example_ids(contents, None if crop == "whole" else dataset.boxes))
        return found

    def _load(self, data: Any, crop: str) -> Dataset | None:
        if crop == "whole":
            return load_dataset(data, cache_dir=self._cache)
        if isinstance(data, Dataset) and data.crop == crop:
            return data
        box = _BOX.fullmatch(crop)
        if box is None or (isinstance(data, Dataset) and data.boxes is not None):
            return None
        margin = float(box["margin"] or 0)
        try:
            return load_dataset(data, crop="box", margin=margin, cache_dir=self._cache)
        except DatasetError:
            return None  # it has no columns that give boxes
