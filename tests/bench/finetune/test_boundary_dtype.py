"""A boundary in float16: half the disk, nearly the same losses, and runs of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_model import SETTINGS, blocks

from bench import FineTuned, Images
from bench.contenders.base import Training
from bench.finetune import run_settings
from featcache.errors import InvalidRequest


def run(images: Images, codes: Any, **options: Any) -> FineTuned:
    contender = FineTuned(blocks(), "b2_conv", **{**SETTINGS, **options})
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, random_state=1, progress=False)
    return contender


def stored_bytes(cache: Path) -> int:
    return sum(shard.stat().st_size for shard in cache.rglob("*.h5"))


def test_float16_takes_half_the_disk_and_trains_nearly_as_float32(
    easy_images: Any, tmp_path: Path
) -> None:
    images, codes = easy_images
    options = {"epochs": 3, "cache_dir": tmp_path / "whole"}
    whole = run(images, codes, **options)
    options["cache_dir"] = tmp_path / "half"
    half = run(images, codes, boundary_dtype="float16", **options)
    for name in ("loss", "val_loss"):
        expected = whole.facts().history[name]
        assert half.facts().history[name] == pytest.approx(expected, rel=1e-2, abs=1e-5)
    assert np.allclose(half.predict_proba(images), whole.predict_proba(images), atol=1e-2)
    inputs, other = half._prepared(), whole._prepared()
    assert inputs.disk_bytes * 2 == other.disk_bytes == 4 * 392 * 40 * 4
    saved = stored_bytes(tmp_path / "whole") - stored_bytes(tmp_path / "half")
    assert saved > 0.9 * 2 * 392 * 40 * 3  # three views; the initial head's features are equal


def test_estimate_and_max_cache_count_the_bytes_of_the_dtype(easy_images: Any) -> None:
    images, _ = easy_images
    needed = 2 * 392 * 40 * 3
    half = FineTuned(blocks(), "b2_conv", boundary_dtype="float16", max_cache=needed, **SETTINGS)
    whole = FineTuned(blocks(), "b2_conv", **SETTINGS)
    saved = whole.estimate(images, 30, 2).disk_bytes - half.estimate(images, 30, 2).disk_bytes
    assert saved == 2 * 392 * (40 + 2 * 30)  # augmented views of the 30 training images alone
    assert half._boundary is not None
    too_small = replace(half._input_plan(), max_cache=needed - 1)
    assert too_small.find_boundary(half._load(), len(images)) is None


def test_a_run_of_float32_is_found_under_its_earlier_name(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, codes = easy_images
    hashed: list[dict[str, Any]] = []
    monkeypatch.setattr(run_settings, "content_key", lambda parts: hashed.append(parts) or "0" * 64)
    for options in ({}, {"boundary_dtype": "float16"}):
        contender = FineTuned(blocks(), "b2_conv", **options, **SETTINGS)
        contender._resolved, contender._first_free = contender._load(), 5
        contender._run_folder(Training(images, codes, 2))
    assert "boundary" not in hashed[0]
    assert hashed[1] == {**hashed[0], "boundary": "float16"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary_dtype": "float64"}, "boundary_dtype='float64'"),
        ({"row_dtype": "float16"}, "pass boundary_dtype= instead"),
    ],
)
def test_other_dtypes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        FineTuned(blocks(), 0.4, **options)


def test_an_image_whose_outputs_do_not_fit_is_unusable(easy_images: Any) -> None:
    import keras

    images, _ = easy_images
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(350.0, name="scale")(inputs)  # 65504 is the 187 of 255
    x = keras.layers.Conv2D(4, 3, name="b2_conv")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    contender = FineTuned(model, "b2_conv", boundary_dtype="float16", **SETTINGS)
    bad = contender.prepare(images, progress=False)
    assert 0 < len(bad) < 40
    assert set(bad.values()) == {
        "the backbone gives values for it beyond 65504, the largest of float16; "
        "rows of float32 hold them"
    }
