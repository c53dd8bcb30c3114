"""Views of images beside collection, and with rows that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_tiny_model
from featcache import Augmentation, extract
from featcache._io.cache_dirs import cache_folder
from featcache.backbones.model import Backbone
from featcache.gc.collect import collect

POLICY = Augmentation(rotation=0.05, zoom=0.2)


def spoil(monkeypatch: pytest.MonkeyPatch, spoiled_pixels: Any) -> None:
    """Make the backbone return NaN for certain pixels."""
    embed = Backbone.embed

    def spoiled(self: Backbone, pixels: Any) -> Any:
        rows = np.array(embed(self, pixels))
        rows[[np.array_equal(p, spoiled_pixels) for p in pixels]] = np.nan
        return rows

    monkeypatch.setattr(Backbone, "embed", spoiled)


def seen_pixels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which the backbone adds the pixels of each image that it is given."""
    seen: list[Any] = []
    embed = Backbone.embed

    def noted(self: Backbone, pixels: Any) -> Any:
        seen.extend(np.asarray(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", noted)
    return seen


def test_an_image_that_is_not_finite_in_one_view_has_no_row_and_is_not_computed_again(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"views": 3, "augmentation": POLICY}
    with monkeypatch.context() as inner:
        seen = seen_pixels(inner)
        whole = extract(
            make_tiny_model(), photos, cache_dir=tmp_path, workers=1, batch_size=1, **options
        )
    assert len(seen) == 36  # the views of an image follow each other
    spoil(monkeypatch, seen[3 * 4 + 2])
    features = extract(tiny_model, photos, **options)
    assert [(bad.position, "not finite" in bad.reason) for bad in features.quarantined] == [
        (4, True)
    ]
    kept = whole[whole.positions != 4]
    assert features.ids == kept.ids
    assert np.allclose(features.X, kept.X, atol=1e-5)
    again = extract(tiny_model, photos, **options)
    assert (again.summary.stored, again.summary.computed, len(again)) == (35, 0, 33)
    # Where the view is not asked for, nothing is missing.
    assert len(extract(tiny_model, photos, views=2, augmentation=POLICY)) == 24


def test_a_collection_beside_an_extraction_of_views_removes_none_of_its_rows(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = Backbone.embed
    removed: list[Any] = []

    def collecting(self: Backbone, pixels: Any) -> Any:
        removed.append(collect(cache_folder(), keep_ids=[]))
        return embed(self, pixels)

    with monkeypatch.context() as inner:
        inner.setattr(Backbone, "embed", collecting)
        features = extract(tiny_model, photos, views=3, augmentation=POLICY, batch_size=4)
    assert len(removed) > 3
    assert not any(removed)
    assert np.asarray(features.X).shape == (36, 8)
    assert sum(removal.rows for removal in collect(cache_folder(), keep_ids=[])) == 36
