"""Bundles as TFLite files: the probabilities of photos, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import write_dogs
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featcache
import heads
from featcache import Normalization, extract, make_bundle
from featcache.backbones.model import Backbone
from featcache.engines.tflite_file import run_tflite
from featcache.errors import InvalidRequest, NotExportable
from featcache.images.decode import load_image, pixels_of_image
from onnx_files import cnn, write


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def features(dogs: Path) -> featcache.Features:
    rule = Normalization(mean=(0.5, 0.4, 0.3), std=0.3, channels="bgr")
    return extract("pocket", dogs, image_size=(32, 40), resize="pad", preprocessing=rule)


def test_a_file_gives_the_probabilities_of_its_bundle(
    features: featcache.Features, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "dogs.tflite"
    dense = MLPClassifier((4,), solver="lbfgs", alpha=1, max_iter=1000, random_state=0)
    pixels = [pixels_of_image(load_image(p), (32, 40), "pad") for p in features.paths]
    for head in (
        heads.LightGBMHead(n_estimators=4, num_leaves=4),
        make_pipeline(StandardScaler(), Normalizer(), dense),
    ):
        bundle = make_bundle(features, head.fit(np.asarray(features.X), features.labels))
        bundle.to_tflite(path, overwrite=True)
        found = run_tflite(path.read_bytes(), np.stack(pixels))
        assert found.dtype == np.float32
        assert np.abs(found - bundle.predict_proba(features)).max() <= 1e-4
    with zipfile.ZipFile(path) as archive:
        metadata = json.loads(archive.read("metadata.json"))
    assert metadata["classes"] == ["dark", "grey", "light"]
    assert (metadata["image_size"], metadata["resize"]) == ("32x40", "pad")
    with pytest.raises(InvalidRequest, match="exists and is not overwritten"):
        bundle.to_tflite(path)
    assert [one.name for one in path.parent.iterdir()] == ["dogs.tflite"]


def test_input_and_output_have_names(dogs: Path, tmp_path: Path) -> None:
    import tensorflow

    from featcache._io.held_warnings import ignored_warnings

    features = extract("pocket", dogs, image_size=(32, 40), row_dtype="float16")
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    bundle.to_tflite(tmp_path / "dogs.tflite")
    with ignored_warnings():
        interpreter = tensorflow.lite.Interpreter(str(tmp_path / "dogs.tflite"))
    (signature,) = interpreter.get_signature_list().values()
    assert signature == {"inputs": ["images"], "outputs": ["probabilities"]}
    (given,) = interpreter.get_input_details()
    assert (given["dtype"], given["shape_signature"].tolist()) == (np.uint8, [-1, 32, 40, 3])


def test_what_cannot_be_converted_is_refused(
    features: featcache.Features, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dogs.tflite"
    net = write(tmp_path / "net.onnx", cnn())
    other = extract(net, dogs, preprocessing="unit")
    bundle = make_bundle(other, heads.LogisticHead().fit(other.X, other.labels))
    with pytest.raises(NotExportable, match="is an ONNX network, which cannot become a TFLite"):
        bundle.to_tflite(path, backbone=net)
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    real = Backbone.__init__

    def on_jax(self: Any, request: Any) -> None:
        real(self, request)
        self.backend = "jax"

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "__init__", on_jax)
        with pytest.raises(NotExportable, match="KERAS_BACKEND=tensorflow"):
            bundle.to_tflite(path)
    import tensorflow

    def refused(*_: Any) -> None:
        raise ValueError("no such operation")

    monkeypatch.setattr(tensorflow.lite.TFLiteConverter, "convert", refused)
    with pytest.raises(NotExportable, match=r"cannot convert .* no such operation"):
        bundle.to_tflite(path)
    with pytest.raises(NotExportable, match="LiteRT cannot run"):
        run_tflite(b"no network", np.zeros((1, 1, 1, 3), np.uint8))
    assert not path.exists()
