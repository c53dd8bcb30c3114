"""Predictions averaged over a photo and its mirror image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_tiny_model, photo
from featcache import Augmentation, Bundle, extract, make_bundle
from featcache.cli.main import main
from featcache.errors import InvalidRequest
from heads import LogisticHead


@pytest.fixture
def bundle(photos: Path) -> Bundle:
    features = extract(make_tiny_model(), photos)
    return make_bundle(
        features, LogisticHead(C=100, calibration_folds=0).fit(features.X, features.labels)
    )


def probabilities(predictions: list[Any]) -> np.ndarray[Any, Any]:
    return np.array([[p for _, p in sorted(one.top_classes)] for one in predictions])


def test_probabilities_of_a_photo_and_its_mirror_image_are_averaged(
    bundle: Bundle, tmp_path: Path
) -> None:
    new = [photo(tmp_path / "new" / f"{i}.png", 50 + i) for i in range(3)]
    bad = tmp_path / "new" / "bad.png"
    bad.write_bytes(b"no image")
    paths = [str(new[0]), str(bad), str(new[1]), str(new[2]), str(new[0])]
    found = bundle.predict(paths, tta=True, backbone=make_tiny_model())
    features = extract(make_tiny_model(), paths, views=2, augmentation="flip")
    each = bundle.predict_proba(features).reshape(2, 4, 2)
    assert not np.allclose(each[0], each[1], atol=1e-3)  # the mirror image matters
    usable = [one for one in found if one.reason is None]
    assert [one.path for one in found] == paths
    assert found[1].reason is not None
    assert np.allclose(probabilities(usable), each.mean(axis=0))
    plain = bundle.predict(paths, backbone=make_tiny_model())
    assert np.allclose(probabilities([p for p in plain if p.reason is None]), each[0])


def test_the_command_averages_too(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, saved = tmp_path / "m.keras", tmp_path / "b.featcache"
    make_tiny_model().save(model)
    bundle.save(saved)
    path = photo(tmp_path / "new.png", 77)
    assert main(["predict", str(saved), str(path), "--backbone", str(model), "--tta", "-q"]) == 0
    (expected,) = bundle.predict([str(path)], tta=True, backbone=make_tiny_model())
    name, value = expected.top_classes[0]
    assert f"{name} {100 * value:.1f} %" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"views": 4}, {"augmentation": Augmentation()}])
def test_mirror_images_and_other_views_exclude_each_other(
    bundle: Bundle, photos: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="a photo and its mirror image"):
        bundle.predict(photos, tta=True, backbone=make_tiny_model(), **options)
