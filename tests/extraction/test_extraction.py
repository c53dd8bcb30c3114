"""Extract once, never twice, never a row on the wrong image."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extraction_checks import assert_right

from conftest import make_tiny_model, photo
from featcache import explain, extract
from featcache.backbones.model import Backbone


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images in each forward pass."""
    passes: list[int] = []
    embed = Backbone.embed

    def counting(self: Backbone, pixels: Any) -> Any:
        passes.append(len(pixels))
        return embed(self, pixels)

    monkeypatch.setattr(Backbone, "embed", counting)
    return passes


def test_every_row_is_its_own_images_embedding(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, batch_size=5)
    assert features.X.shape == (12, 8)
    assert (features.classes, features.labels) == (["cat", "dog"], ["cat"] * 6 + ["dog"] * 6)
    assert_right(features, tiny_model)


def test_a_second_call_computes_nothing(photos: Path, tiny_model: Any, computed: list[int]) -> None:
    first = np.asarray(extract(tiny_model, photos).X)
    assert sum(computed) == 12
    again = extract(tiny_model, photos)
    assert sum(computed) == 12
    assert (again.summary.stored, again.summary.computed) == (12, 0)
    assert np.array_equal(np.asarray(again.X), first)


def test_new_and_changed_images_alone_are_computed(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    extract(tiny_model, photos)
    for i in range(3):
        photo(photos / "cat" / f"new{i}.png", 100 + i)
    photo(photos / "dog" / "07.png", 200)
    features = extract(tiny_model, photos)
    assert sum(computed) == 12 + 4
    assert_right(features, tiny_model)


def test_moved_renamed_and_relabelled_sets_are_hits(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    extract(tiny_model, photos)
    moved = photos.rename(photos.with_name("elsewhere"))
    (moved / "cat").rename(moved / "wolf")
    (moved / "wolf" / "00.png").rename(moved / "dog" / "zz.png")
    features = extract(tiny_model, moved)
    flat = extract(
        tiny_model, [moved / "dog" / "06.png", moved / "wolf" / "01.png"], labels=["x", "y"]
    )
    assert sum(computed) == 12
    assert features.classes == ["dog", "wolf"]
    assert_right(features, tiny_model)
    assert_right(flat, tiny_model)


def test_copies_of_a_photo_are_computed_once_and_each_has_its_row(
    photos: Path, tiny_model: Any, computed: list[int]
) -> None:
    shutil.copy(photos / "cat" / "00.png", photos / "dog" / "copy.png")
    features = extract(tiny_model, photos)
    assert (len(features), sum(computed)) == (13, 12)
    assert_right(features, tiny_model)


def test_what_differs_under_one_description_is_not_described_twice(photos: Path) -> None:
    extract(make_tiny_model(), photos)
    other = str(explain(make_tiny_model(seed=1), photos))
    assert "differs in other weights)" in other
    layer = str(explain(make_tiny_model(), photos, layer="conv"))
    assert "layer (output there, conv requested)" in layer
    assert "weights" not in layer or "weights of other layers" in layer
    deeper = str(explain(make_tiny_model(seed=1), photos, layer="conv"))
    assert "weights of other layers" in deeper
    assert "passed" not in other + layer + deeper


def test_two_models_never_share_a_row(photos: Path) -> None:
    one, other = make_tiny_model(0), make_tiny_model(1)
    assert extract(one, photos).summary.folder != extract(other, photos).summary.folder
    assert_right(extract(other, photos), other)


def test_equal_weights_in_another_architecture_make_another_store(photos: Path) -> None:
    one, other = make_tiny_model(), make_tiny_model(activation="tanh")
    assert extract(one, photos).spec.key != extract(other, photos).spec.key
    assert_right(extract(other, photos), other)


def test_the_same_model_built_again_is_a_hit(photos: Path, computed: list[int]) -> None:
    extract(make_tiny_model(), photos)
    extract(make_tiny_model(), photos)
    assert sum(computed) == 12


@pytest.mark.parametrize(
    "changes", [{"batch_size": 1}, {"workers": 1}, {"batch_size": 7, "workers": 3}]
)
def test_how_it_is_run_is_no_part_of_the_key(
    photos: Path, tiny_model: Any, computed: list[int], changes: dict[str, int]
) -> None:
    extract(tiny_model, photos)
    extract(tiny_model, photos, **changes)  # type: ignore[arg-type]
    assert sum(computed) == 12


@pytest.mark.parametrize(
    ("changes", "component"),
    [
        ({"image_size": 40}, "image_size"),
        ({"layer": "conv1"}, "layer"),
        ({"weights": "random:1"}, "weights"),
        ({"pooling": "max", "layer": "conv_pw_13_relu"}, "pooling"),
        ({"resize": "crop"}, "resize"),
        ({"preprocessing": "unit"}, "preprocessing"),
    ],
)
def test_what_changes_a_feature_makes_another_store_and_explain_names_it(
    photos: Path, changes: dict[str, Any], component: str
) -> None:
    base: dict[str, Any] = {"image_size": 32, "weights": "random"}
    if "pooling" in changes:
        base["layer"] = changes["layer"]
    extract("mobilenet", photos, **base)
    assert explain("mobilenet", photos, **base).exists
    explanation = explain("mobilenet", photos, **{**base, **changes})
    assert not explanation.exists
    assert explanation.to_compute == 12
    assert component in explanation.differs_in
    assert component in str(explanation)
    # A layer before others has fewer weights under it, which is a difference of its own.
    assert set(explanation.differs_in) <= {
        component,
        "weights" if component == "layer" else component,
        "pooling",
    }


def test_explain_computes_and_writes_nothing(
    photos: Path, tiny_model: Any, computed: list[int], tmp_path: Path
) -> None:
    explanation = explain(tiny_model, photos)
    assert (explanation.stored, explanation.to_compute, explanation.exists) == (0, 12, False)
    assert not computed
    assert not (tmp_path / "cache" / "stores").exists()


def test_each_call_logs_counts_and_place(
    photos: Path, tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "featcache"):
        folder = extract(tiny_model, photos).summary.folder
    assert f"12 images: 0 stored, 12 to compute, 0 quarantined; store {folder}" in caplog.text


def test_a_search_on_stored_rows_does_not_fill_the_log(
    photos: Path, tiny_model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def log_of(progress: bool | None) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, "featcache"):
            extract(tiny_model, photos, cache_dir=tmp_path / "cache", progress=progress)
        return caplog.text

    assert "12 computed" in log_of(progress=False)
    assert log_of(progress=False) == ""
    assert "12 stored" in log_of(progress=None)
