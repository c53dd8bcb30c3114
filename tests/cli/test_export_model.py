"""`featcache export-model`: formats by name or by ending, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from featcache import extract, make_bundle
from featcache.bundle.network_formats import network_format
from featcache.cli import main
from featcache.errors import InvalidRequest
from heads import LogisticHead


@pytest.fixture
def bundle(photos: Path, tmp_path: Path) -> str:
    features = extract("pocket", photos, image_size=32)
    path = tmp_path / "model.featcache"
    make_bundle(features, LogisticHead().fit(features.X, features.labels)).save(path)
    return str(path)


def test_a_bundle_is_written_as_a_network(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "dogs.onnx")
    assert main(["export-model", bundle, "--out", file]) == 0
    assert capsys.readouterr().out == (
        f"{file}: onnx, images of 32 x 32 pixels to 2 probabilities\n"
    )
    onnx.checker.check_model(file)
    assert main(["export-model", bundle, "--out", file]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["export-model", bundle, "--out", file, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": file, "format": "onnx", "image_size": [32, 32], "resize": "stretch",
        "classes": ["cat", "dog"],
    }  # fmt: skip


def test_the_ending_says_the_format() -> None:
    assert network_format("a/B.ONNX") == "onnx"
    assert network_format("b.tflite", "tflite") == "tflite"
    for path in ("dogs", "dogs.openvino", "dogs.keras"):
        with pytest.raises(InvalidRequest, match="does not say the format"):
            network_format(path)
        assert network_format(path, "openvino") == "openvino"
    with pytest.raises(InvalidRequest, match=r"belongs to the format 'onnx', and 'tflite'"):
        network_format("dogs.onnx", "tflite")
