"""Backbones of keras-hub give the rows that keras-hub itself gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("keras_hub", reason="keras-hub is not installed (the extra hub)")

import hub_models
from featcache import extract, load_backbone
from hub_models import SIDE, randomized, save


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos of the networks' size, so that nothing is resized."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), np.uint8)
    for number, one in enumerate(pixels // np.array([1, 2, 3, 5], np.uint8)[:, None, None, None]):
        Image.fromarray(one).save(folder / f"{number}.png")
    return folder


def pixels_of(folder: Path) -> Any:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


def by_hand(folder: Path, images: Path) -> Any:
    """What keras-hub gives: its own converter, from the preset, and a call of the backbone."""
    import keras
    import keras_hub

    backbone = keras_hub.models.Backbone.from_preset(str(folder))
    converter = keras_hub.layers.ImageConverter.from_preset(str(folder))
    prepared = converter(pixels_of(images).astype("float32"))
    tower = getattr(backbone, "vision_encoder", backbone)
    names = {"DINOV3Backbone": "pixel_values"}
    given = prepared
    if isinstance(tower.input, dict):
        given = {names.get(type(tower).__name__, "images"): prepared}
    found = tower(given, training=False)
    if type(backbone).__name__ == "MetaCLIP2Backbone":
        found = backbone.vision_post_layer_norm(backbone.vision_pooler(found))
    if isinstance(found, dict):
        found = found["stage2"]
    return keras.ops.convert_to_numpy(found)


PREFIX = {"ViT": 1, "DeiT": 2, "DINOv2": 4, "DINOv3": 3, "CLIP": 1}


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name in hub_models.MAIN else pytest.mark.slow)
        for name in hub_models.FAMILIES
    ],
)
def test_rows_of_a_preset_are_those_of_keras_hub(family: str, images: Path, tmp_path: Path) -> None:
    folder = save(randomized(hub_models.FAMILIES[family]()), tmp_path / "preset")
    expected = by_hand(folder, images)
    first = expected
    if expected.ndim == 3:
        first = expected[:, 0] if family in PREFIX else expected.mean(1)
    elif expected.ndim == 4:
        first = expected.mean((1, 2))
    found = extract(f"hub:{folder}", images, cache_dir=tmp_path / "cache")
    scale = max(1.0, float(np.abs(first).max()))
    error = np.abs(np.asarray(found.X) - first).max()
    assert error < 1e-4 * scale
    assert error < 0.1 * np.ptp(first, axis=0).max()  # which the images differ by
    if family in PREFIX:
        patches = expected[:, PREFIX[family] :].mean(1)
        mean = load_backbone(folder, pooling="avg", cache_dir=tmp_path / "cache").backbone
        assert np.abs(mean.embed_untraced(pixels_of(images)) - patches).max() < 1e-4 * scale
