"""Heads on stored features: mirror images at test time, and several backbones side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import CachedHead, Contender, FrozenBackbone, evaluate, make_split
from bench.__main__ import main
from conftest import make_tiny_model
from contracts import ContenderContract
from featcache import extract, load_dataset
from featcache.errors import InvalidRequest


class TestWithMirrorImages(ContenderContract):
    def make(self) -> Contender:
        return CachedHead(make_tiny_model(), "logistic", tta=True)


class TestSeveralBackbones(ContenderContract):
    def make(self) -> Contender:
        return CachedHead([make_tiny_model(), make_tiny_model(side=32)], "knn", tta=True)


def fitted(contender: CachedHead, easy_images: Any) -> tuple[Any, Any]:
    images, codes = easy_images
    contender.prepare(images, progress=False)
    train, test = np.arange(0, len(images), 2), np.arange(1, len(images), 2)
    contender.fit(images.take(train), codes[train], 2, progress=False)
    return images.take(test), codes[test]


def test_mirror_images_are_extracted_of_predicted_images_alone(easy_images: Any) -> None:
    plain, tta = (CachedHead(make_tiny_model(), tta=tta) for tta in (False, True))
    test, _ = fitted(plain, easy_images)
    fitted(tta, easy_images)
    assert tta.facts().computed_now == 0
    both = extract(make_tiny_model(), test.dataset(), progress=False)
    proba = tta.predict_proba(test)
    assert tta.facts().computed_now == len(test)
    views = extract(make_tiny_model(), test.dataset(), views=2, augmentation="flip", progress=False)
    assert (len(both), views.summary.computed) == (len(test), 0)
    expected = tta._trained.predict_proba(views.X).reshape(2, len(test), 2).mean(axis=0)
    assert np.allclose(proba, expected, atol=1e-6)
    assert not np.allclose(proba, plain.predict_proba(test), atol=1e-9)


def test_the_cost_of_mirror_images_is_charged_once_and_also_when_they_are_stored(
    photos: Path,
) -> None:
    split = make_split(load_dataset(photos), 0.5)
    plain = evaluate({"h": CachedHead(make_tiny_model())}, split)["h"].cost
    first, again = (
        evaluate({"h": CachedHead(make_tiny_model(), tta=True)}, split)["h"].cost for _ in range(2)
    )
    assert first.extract_seconds == pytest.approx(again.extract_seconds)
    assert first.extract_seconds > plain.extract_seconds
    assert first.disk_bytes > plain.disk_bytes
    assert first.predict_seconds < 1 > again.predict_seconds


def test_the_features_of_several_backbones_are_put_side_by_side(easy_images: Any) -> None:
    one, other = make_tiny_model(), make_tiny_model(side=32)
    contender = CachedHead([one, FrozenBackbone(other)], "logistic")
    test, codes = fitted(contender, easy_images)
    alone = [CachedHead(model, "logistic") for model in (one, other)]
    for single in alone:
        fitted(single, easy_images)
    assert contender._trained.n_features_in_ == sum(c._trained.n_features_in_ for c in alone)
    assert np.mean(contender.predict_proba(test).argmax(axis=1) == codes) >= 0.9
    facts, parts = contender.facts(), [c.facts() for c in alone]
    assert facts.extract_seconds == pytest.approx(sum(f.extract_seconds for f in parts))
    assert facts.disk_bytes == sum(f.disk_bytes for f in parts)
    assert " + " in facts.backbone
    assert contender.bundle(["a", "b"], {}, {}) is None
    network = contender.network()
    assert network is not None
    assert network["parameters"] == sum(part.network()["parameters"] for part in contender.parts)


def test_a_head_without_a_bundle_and_no_backbone(easy_images: Any) -> None:
    contender = CachedHead(make_tiny_model(), "knn")
    fitted(contender, easy_images)
    assert contender.bundle(["a", "b"], {}, {}) is None
    with pytest.raises(InvalidRequest, match="at least one backbone"):
        CachedHead([])


def test_the_command_joins_backbones_and_adds_mirror_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", "mobilenet+pocket@image_size=64", "--heads",
        "logistic", "--weights", "random", "--image-size", "32", "--tta", "--out",
        str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "mobilenet+pocket@image_size=64 + logistic" in out
    assert "mobilenet+pocket@image_size=64 + logistic + flip" in out
    assert main([*command, "--backbones", "mobilenet+nope"]) == 2
    assert "nope" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"views": 3}, {"augmentation": "flip"}])
def test_several_views_of_an_image_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="one row per image"):
        CachedHead("pocket", "logistic", **option)
