"""Images that cannot be used, or whose values are not finite: quarantined with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extraction_checks import assert_right
from PIL import Image

from conftest import make_tiny_model, photo
from featcache import Dataset, extract
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.errors import InvalidRequest, NoUsableImages, WeightsMismatch


def test_a_bad_image_is_quarantined_and_the_others_stay_aligned(
    photos: Path, tiny_model: Any
) -> None:
    (photos / "cat" / "02.png").write_bytes(b"")
    (photos / "dog" / "08.png").write_text("this is a text")
    (photos / "dog" / "09.png").write_bytes((photos / "dog" / "09.png").read_bytes()[:200])
    features = extract(tiny_model, photos, batch_size=4)
    reasons = {Path(q.path).name: q.reason for q in features.quarantined}
    assert reasons["02.png"] == "the file is empty"
    assert "known format" in reasons["08.png"]
    assert "damaged" in reasons["09.png"]
    assert features.positions.tolist() == [0, 1, 3, 4, 5, 6, 7, 10, 11]
    assert features.summary.quarantined == 3
    assert "1 x the file is empty" in str(features.summary)
    assert_right(features, tiny_model)


def test_quarantine_is_remembered_until_a_retry_is_asked_for(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.images import decode as images

    monkeypatch.setattr(images.limits, "MAX_PIXELS", 100)
    photo(photos / "cat" / "tiny.png", 50, (9, 9))
    assert len(extract(tiny_model, photos).quarantined) == 12
    monkeypatch.undo()
    monkeypatch.setenv("FEATCACHE_CACHE", str(photos.parent / "cache"))
    assert len(extract(tiny_model, photos).quarantined) == 12
    features = extract(tiny_model, photos, retry_failed=True)
    assert (len(features), len(features.quarantined)) == (13, 0)


def test_if_every_image_is_bad_it_is_an_error_with_the_reasons(
    tmp_path: Path, tiny_model: Any
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text("no image")
    with pytest.raises(
        NoUsableImages, match=r"No image can be used: 2 images .* 'a.jpg': is not an image"
    ) as raised:
        extract(tiny_model, tmp_path)
    assert len(raised.value.quarantined) == 2


def test_values_that_are_not_finite_never_enter_a_store(photos: Path) -> None:
    model = make_tiny_model()
    kernel, bias = model.get_weights()
    model.set_weights([kernel * np.float32(1e38), bias])
    with pytest.raises(InvalidRequest, match=r"12 valid images is finite: the model gives"):
        extract(model, photos)
    assert not list(stores_folder(cache_folder()).iterdir())


@pytest.mark.parametrize("batch_size", [1, 5, None])
def test_a_model_that_gives_no_finite_value_is_blamed_and_not_the_images(
    photos: Path, tmp_path: Path, batch_size: int | None
) -> None:
    for i in range(12, 40):
        photo(photos / "dog" / f"{i}.png", i)
    model = make_tiny_model()
    kernel, bias = model.get_weights()
    model.set_weights([kernel * np.float32(1e38), bias])
    model.save(tmp_path / "own.keras")
    for own in (model, tmp_path / "own.keras"):
        with pytest.raises(InvalidRequest, match="Check its weights") as raised:
            extract(own, photos, batch_size=batch_size)
        assert raised.value.images >= 32
        assert not list(stores_folder(cache_folder()).iterdir())


def test_weights_of_nan_are_refused_even_where_an_activation_hides_them(
    photos: Path, tmp_path: Path
) -> None:
    model = make_tiny_model()
    model.set_weights([np.full(w.shape, np.nan, np.float32) for w in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    for own in (model, tmp_path / "nan.keras"):
        with pytest.raises(WeightsMismatch, match="216 of the 216 values of conv/kernel are NaN"):
            extract(own, photos)
        assert not stores_folder(cache_folder()).exists()


def test_an_image_whose_values_are_not_finite_beside_others_is_quarantined(photos: Path) -> None:
    import keras

    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.ops.max(inputs / keras.ops.max(inputs), axis=(1, 2)))
    Image.new("RGB", (24, 20)).save(photos / "cat" / "00.png")
    options: dict[str, Any] = {"preprocessing": "none", "batch_size": 1}
    first = extract(model, photos, **options)
    assert [Path(q.path).name for q in first.quarantined] == ["00.png"]
    Image.new("RGB", (30, 20)).save(photos / "cat" / "black.png")
    again = extract(model, photos, **options)
    assert [Path(q.path).name for q in again.quarantined] == ["00.png", "black.png"]


def test_a_known_id_is_checked_when_the_file_is_read(photos: Path, tiny_model: Any) -> None:
    paths = sorted(str(p) for p in photos.glob("cat/*.png"))
    lying = Dataset(paths, ids=["ab" * 32] * len(paths))
    with pytest.raises(NoUsableImages, match="replaced since it was listed"):
        extract(tiny_model, lying)
