"""Extraction into rows of float16: a store of its own, and no value that became infinite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import make_tiny_model
from featcache import Predictor, explain, extract, load_bundle, make_bundle, verify
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.errors import BundleMismatch, InvalidRequest, NoFiniteRow
from featcache.extraction.recheck import verify_sample
from featcache.gc.collect import collect
from heads import LogisticHead


def scaled_model(scale: float) -> Any:
    """A model whose values are the sums of the pixels of each channel, scaled."""
    import keras

    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, keras.ops.sum(inputs, axis=(1, 2)) * scale)


def test_rows_of_float16_have_a_store_of_their_own(photos: Path, tiny_model: Any) -> None:
    whole = extract(tiny_model, photos)
    plan = explain(tiny_model, photos, row_dtype="float16")
    assert plan.differs_in == ["row_dtype"]
    assert "row_dtype (float32 there, float16 requested)" in str(plan)
    half = extract(tiny_model, photos, row_dtype="float16", batch_size=2)
    assert (half.summary.computed, half.summary.folder) == (12, plan.folder)
    assert half.spec.weights == whole.spec.weights
    assert half.arguments["row_dtype"] == "float16"
    rows = np.asarray(half.X)
    assert rows.dtype == half.X.dtype == np.float32
    assert np.array_equal(rows, rows.astype(np.float16))
    assert np.allclose(rows, whole.X, rtol=1e-3, atol=1e-6)
    assert extract(tiny_model, photos, row_dtype="float16").summary.computed == 0
    check = verify_sample(half.summary.folder, photos, 12, backbone=tiny_model)
    assert check.differing == []
    assert check.tolerance == pytest.approx(6e-4)
    assert check.largest > 1e-5
    collect(cache_folder(), keep_ids=half.ids[:5])
    assert np.array_equal(extract(tiny_model, photos, row_dtype="float16").X, rows)
    assert verify(half.summary.folder) == []


def test_views_of_float16_and_their_mean_stay_in_range(photos: Path) -> None:
    model = scaled_model(1.2)  # sums of 16 x 16 pixels of about 127: 39,000
    options: dict[str, Any] = {"views": 3, "preprocessing": "none"}
    half = extract(model, photos, row_dtype="float16", **options)
    whole = extract(model, photos, **options)
    mean = np.asarray(half.mean_views().X)
    assert np.allclose(mean, whole.mean_views().X, rtol=1e-3)
    assert np.isfinite(half.X.sum())
    assert len(half) == 36


def test_an_image_with_a_value_too_large_is_quarantined_with_the_reason(photos: Path) -> None:
    model = scaled_model(1.2)
    Image.new("RGB", (20, 20), "white").save(photos / "cat" / "00.png")  # 78,336
    options: dict[str, Any] = {"preprocessing": "none", "batch_size": 4}
    half = extract(model, photos, row_dtype="float16", **options)
    (bad,) = half.quarantined
    assert Path(bad.path).name == "00.png"
    assert "beyond 65504, the largest of float16; rows of float32 hold them" in bad.reason
    assert np.isfinite(np.asarray(half.X)).all()
    again = extract(model, photos, row_dtype="float16", **options)
    assert (again.summary.computed, len(again.quarantined)) == (0, 1)
    assert len(extract(model, photos, **options)) == 12
    bundle = make_bundle(half, LogisticHead().fit(half.X, half.y))
    (prediction,) = Predictor(bundle, backbone=model).predict([bad.path])
    assert (prediction.top_classes, prediction.reason) == ([], bad.reason)


def test_if_no_row_fits_it_is_an_error_that_says_what_to_do(photos: Path) -> None:
    with pytest.raises(NoFiniteRow, match=r"can be stored as float16: .* Store rows as float32"):
        extract(scaled_model(100), photos, preprocessing="none", row_dtype="float16")
    assert not list(stores_folder(cache_folder()).iterdir())


def test_an_unknown_dtype_is_refused(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(InvalidRequest, match="row_dtype='bfloat16'"):
        extract(tiny_model, photos, row_dtype="bfloat16")  # type: ignore[arg-type]


def test_a_bundle_predicts_on_rows_that_are_rounded_as_in_training(
    photos: Path, tmp_path: Path
) -> None:
    make_tiny_model().save(tmp_path / "own.keras")
    model = tmp_path / "own.keras"
    half = extract(model, photos, row_dtype="float16")
    head = LogisticHead().fit(half.X, half.y)
    bundle = make_bundle(half, head)
    bundle.save(tmp_path / "half.bundle")
    assert "rounded to float16" in bundle.card()
    loaded = load_bundle(tmp_path / "half.bundle")
    found = loaded.predict(half.paths, top=2, backbone=model)
    proba = [dict(one.top_classes)["dog"] for one in found]
    assert np.allclose(proba, head.predict_proba(half.X)[:, 1], atol=1e-6)
    assert sum(1 for _ in stores_folder(cache_folder()).iterdir()) == 1  # it used the same store
    with pytest.raises(BundleMismatch, match="row_dtype"):
        loaded.predict_proba(extract(model, photos))
    with pytest.raises(BundleMismatch, match="row_dtype"):
        loaded.predict(half.paths, backbone=model, row_dtype="float32")


def test_a_bundle_of_float32_is_written_as_before_there_was_a_choice(
    photos: Path, tmp_path: Path, tiny_model: Any
) -> None:
    import json
    import zipfile

    features = extract(tiny_model, photos)
    bundle = make_bundle(features, LogisticHead().fit(features.X, features.y))
    bundle.save(tmp_path / "whole.bundle")
    with zipfile.ZipFile(tmp_path / "whole.bundle") as archive:
        head = json.loads(archive.read("bundle.json"))
    assert "row_dtype" not in head["arguments"] | head["spec"]
    loaded = load_bundle(tmp_path / "whole.bundle")
    assert (loaded.arguments["row_dtype"], loaded.spec) == ("float32", features.spec)
