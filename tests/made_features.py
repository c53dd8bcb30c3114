"""Features of made-up backbones, whose rows follow from backbone, image and view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featcache import Features
from featcache.extraction.summary import ExtractionSummary
from featcache.store.lazy_rows import StoredRows
from featcache.store.row_index import pack_ids
from featcache.store.store import Store
from stores import SPEC, ids_of

IMAGES, VIEWS = 8, 2
CLASSES = ["cat", "dog"]


def row_of(backbone: int, width: int, image: int, view: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng([backbone, image, view])
    return generator.normal(size=width).astype(np.float32)


def label_of(image: int) -> int:
    return image % 2


class Backbones:
    """Stores of several backbones, number b of width 3 + b, with all views of all images."""

    def __init__(self, folder: Path, count: int = 3) -> None:
        self.stores = [[self._store(folder, b, v) for v in range(VIEWS)] for b in range(count)]

    def _store(self, folder: Path, backbone: int, view: int) -> Store:
        spec = replace(SPEC, backbone=f"b{backbone}", views="plain" if not view else f"v{view}")
        store = Store.create(folder / spec.folder, spec, 3 + backbone)
        rows = np.stack([row_of(backbone, 3 + backbone, i, view) for i in range(IMAGES)])
        store.append(rows, ids_of(*range(IMAGES)))
        store.refresh()
        return store

    def features(
        self,
        backbone: int,
        rows: Sequence[tuple[int, int]],
        labels: Sequence[float] | None = None,
        **changes: Any,
    ) -> Features:
        """Features of a backbone with one row per (image, view)."""
        images = [image for image, _ in rows]
        views = np.array([view for _, view in rows], np.int64)
        stores = self.stores[backbone]
        codes = np.array([label_of(i) for i in images] if labels is None else labels)
        made = Features(
            X=StoredRows(stores, pack_ids(ids_of(*images)), views[:, None]),
            y=codes if np.isnan(codes).any() else codes.astype(np.int64),
            classes=list(CLASSES),
            paths=[f"{image}.png" for image in images],
            ids=ids_of(*images),
            positions=np.array(images, np.int64),
            views=views,
            spec=stores[0].spec,
            summary=ExtractionSummary(
                1, 2, 0, 0.5, stores[0].folder, f"b{backbone}", "none", "random"
            ),
            arguments={"backbone": f"b{backbone}"},
        )
        return replace(made, **changes)


def expected(backbones: Sequence[int], rows: Sequence[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """What the rows of several backbones side by side are."""
    width = sum(3 + b for b in backbones)
    return np.array(
        [np.concatenate([row_of(b, 3 + b, *row) for b in backbones]) for row in rows], np.float32
    ).reshape(len(rows), width)
