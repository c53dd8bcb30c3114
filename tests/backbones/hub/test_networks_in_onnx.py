"""Backbones of keras-hub as ONNX graphs give the same embeddings, or are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras_hub", reason="keras-hub is not installed (the extra hub)")

import hub_models
from featcache import load_backbone
from featcache.backbones.preprocessing import images_of_size
from featcache.backbones.to_onnx.file import encode_network, run_network
from featcache.errors import NotExportable
from hub_models import randomized, save

QUICK = ("SigLIP",)
REFUSED = ("DeiT", "DINOv3", "MobileNetV5", "Swin")


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in hub_models.FAMILIES
    ],
)
def test_families_give_the_same_embeddings(family: str, tmp_path: Path) -> None:
    folder = save(randomized(hub_models.FAMILIES[family]()), tmp_path / "preset")
    built = load_backbone(f"hub:{folder}")
    backbone, size = built.backbone, built.spec.image_size

    def encoded() -> bytes:
        return encode_network(backbone, size, lambda _, x: x, backbone.width, {})

    if family in REFUSED:
        with pytest.raises(NotExportable, match="cannot be written to an ONNX network"):
            encoded()
        return
    images = images_of_size(3, size)
    found, expected = run_network(encoded(), images), backbone.embed_untraced(images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(found - expected).max() <= 0.1 * np.ptp(expected, axis=0).max()
