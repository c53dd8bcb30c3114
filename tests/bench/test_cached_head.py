"""Heads on stored features: mirror images at test time, and several backbones side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import CachedHead, Contender, FrozenBackbone, evaluate, make_split
from bench.__main__ import main
from bench.contenders.frozen_backbone import FLIP
from conftest import make_tiny_model
from contracts import ContenderContract
from featcache import Augmentation, concat, explain, extract, load_dataset
from featcache.errors import InvalidRequest
from heads import LogisticHead


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
    bundle = contender.bundle(["a", "b"], {}, {})
    assert bundle is not None
    found = bundle.predict_proba(concat([p.features for p in contender.parts]))
    rows = [contender.parts[0]._rows[i] for i in test.ids]
    assert np.allclose(found[rows], contender.predict_proba(test), atol=1e-5)
    network = contender.network()
    assert network is not None
    assert network["parameters"] == sum(part.network()["parameters"] for part in contender.parts)


def test_a_head_without_a_bundle_and_no_backbone(easy_images: Any) -> None:
    for backbones, head in (([make_tiny_model()], "knn"), ([make_tiny_model()] * 2, "logistic")):
        contender = CachedHead(backbones, head)
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


POLICY = Augmentation(rotation=0.05)


class TestWithViews(ContenderContract):
    def make(self) -> Contender:
        return CachedHead(make_tiny_model(), "logistic", views=3, augmentation=POLICY)


def test_a_head_trains_on_all_views_of_its_training_images_alone(easy_images: Any) -> None:
    contender = CachedHead(make_tiny_model(), "logistic", views=3, augmentation=POLICY, tta=True)
    test, _ = fitted(contender, easy_images)
    images, codes = easy_images
    train = images.take(range(0, len(images), 2))
    views = extract(
        make_tiny_model(), train.dataset(), views=3, augmentation=POLICY, progress=False
    )
    assert views.summary.computed == 0
    assert contender.facts().computed_now == len(images) + 2 * len(train)
    head = LogisticHead().fit(views.X, np.tile(codes[::2], 3), groups=views.ids)
    proba = contender.predict_proba(test)
    both = extract(make_tiny_model(), test.dataset(), views=2, augmentation="flip", progress=False)
    assert both.summary.computed == 0
    expected = head.predict_proba(both.X).reshape(2, len(test), 2).mean(axis=0)
    assert np.allclose(proba, expected, atol=1e-5)
    assert contender.facts().computed_now == 2 * len(images) + len(train)
    plan = explain(make_tiny_model(), test.dataset(), views=3, augmentation=POLICY)
    assert (plan.stored, plan.to_compute) == (len(test), 2 * len(test))
    assert contender.facts().notes["views"].startswith("3, Augmentation(")


def test_copies_of_an_image_have_the_rows_of_each_view(easy_images: Any) -> None:
    images, _ = easy_images
    with_copies = images.take([0, 1, 0, 2, 1, 3])
    part = FrozenBackbone(make_tiny_model())
    part.prepare(with_copies, progress=False)
    part.prepare_views("training", with_copies, {"views": 3, "augmentation": POLICY}, False)
    several = part._views["training"].features.X[:].reshape(3, 6, -1)
    for view in (1, 2):
        assert np.array_equal(part.view_embeddings("training", with_copies, view), several[view])


def test_views_of_several_backbones_are_put_side_by_side(easy_images: Any) -> None:
    contender = CachedHead(
        [make_tiny_model(), make_tiny_model(side=32)], "knn", views=2, augmentation="flip"
    )
    test, codes = fitted(contender, easy_images)
    assert contender._trained.rows_.shape == (40, 16)
    assert np.mean(contender.predict_proba(test).argmax(axis=1) == codes) >= 0.9


def test_the_cost_of_views_is_charged_also_when_they_are_stored(photos: Path) -> None:
    split = make_split(load_dataset(photos), 0.5)
    plain = evaluate({"h": CachedHead(make_tiny_model())}, split)["h"].cost
    first, again = (
        evaluate({"h": CachedHead(make_tiny_model(), views=3)}, split)["h"].cost for _ in range(2)
    )
    assert first.extract_seconds == pytest.approx(again.extract_seconds)
    assert first.extract_seconds > plain.extract_seconds
    assert first.disk_bytes == plain.disk_bytes + 2 * 6 * 8 * 4
    bundle = CachedHead(make_tiny_model(), views=3)
    evaluate({"h": bundle}, split)
    assert bundle.bundle(["cat", "dog"], {}, {}) is not None


def test_an_image_without_a_row_of_a_view_is_read_as_it_is(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = easy_images
    part = FrozenBackbone(make_tiny_model())
    part.prepare(images, progress=False)
    part.prepare_views("test", images, FLIP, progress=False)
    del part._views["test"].rows[images.ids[3]]
    few = images.take(range(6))
    plain, flips = part.embeddings(few), part.view_embeddings("test", few, 1)
    same = [np.array_equal(a, b) for a, b in zip(plain, flips, strict=True)]
    assert same == [i == images.ids[3] for i in few.ids]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "whole number from 1"),
        ({"augmentation": "flip"}, "views=2"),
        ({"views": 3, "augmentation": "flip"}, "two views"),
    ],
)
def test_views_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        CachedHead("pocket", "logistic", **options)
    with pytest.raises(InvalidRequest, match="to CachedHead"):
        FrozenBackbone("pocket", **options)


def test_the_command_trains_heads_on_views(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "--data", str(photos), "--backbones", "pocket", "--heads", "logistic", "--views", "2",
        "--augmentation", "flip", "--out", str(tmp_path / "out"), "--quiet",
    ]  # fmt: skip
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "pocket + logistic on 2 views" in out
    assert main([*command, "--augmentation", "zoom=0.2", "--views", "1"]) == 2
    assert "--views 2" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--augmentation", "blur=1"])
