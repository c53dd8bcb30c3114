"""Bundles as folders of OpenVINO: the probabilities of photos, and what is refused."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from made_bundles import write_dogs
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featcache
import heads
from featcache import Normalization, extract, make_bundle
from featcache.errors import InvalidRequest, MissingExtra, NotExportable, StoreWriteError
from featcache.images.decode import load_image, pixels_of_image
from onnx_files import cnn, write
from refusals import refuse


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def features(dogs: Path) -> featcache.Features:
    return extract("pocket", dogs, image_size=(32, 40), resize="crop")


def compiled(folder: Path) -> Any:
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.compile_model(folder / "model.xml", "CPU", options)


def check(
    bundle: featcache.Bundle, features: featcache.Features, folder: Path, limit: float = 1e-4
) -> None:
    """The network gives the probabilities of the bundle, for photos of the file system."""
    size = bundle.spec.image_size
    how: Any = bundle.arguments["resize"]
    pixels = [pixels_of_image(load_image(path), size, how) for path in features.paths]
    found = compiled(folder)({"images": np.stack(pixels)})["probabilities"]
    assert found.dtype == np.float32
    assert np.abs(found - bundle.predict_proba(features)).max() <= limit


def test_a_folder_gives_the_probabilities_of_its_bundle(
    features: featcache.Features, tmp_path: Path
) -> None:
    folder = tmp_path / "new" / "dogs"
    X = np.asarray(features.X)
    dense = MLPClassifier((4,), solver="lbfgs", alpha=1, max_iter=1000, random_state=0)
    for head in (
        heads.LightGBMHead(n_estimators=4, num_leaves=4),
        make_pipeline(StandardScaler(), Normalizer(), dense),
    ):
        bundle = make_bundle(features, head.fit(X, features.labels))
        bundle.to_openvino(folder, overwrite=True)
        check(bundle, features, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml"]
    assert [path.name for path in folder.parent.iterdir()] == ["dogs"]
    metadata = openvino.Core().read_model(folder / "model.xml").get_rt_info(["featcache"]).value
    assert json.loads(metadata["classes"]) == ["dark", "grey", "light"]
    assert (metadata["image_size"], metadata["resize"]) == ("32x40", "crop")


def test_rows_are_rounded_as_in_training(dogs: Path, tmp_path: Path) -> None:
    features = extract("pocket", dogs, image_size=32, row_dtype="float16")
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    bundle.to_openvino(tmp_path / "dogs")
    check(bundle, features, tmp_path / "dogs", 1e-2)  # a number may be rounded the other way
    assert 'destination_type="f16"' in (tmp_path / "dogs" / "model.xml").read_text()


def test_networks_of_any_layers_are_continued(dogs: Path, tmp_path: Path, own_model: Any) -> None:
    net = write(tmp_path / "net.onnx", cnn())
    rule = Normalization(mean=(0.5, 0.4, 0.3), std=0.3, channels="bgr")
    for backbone in (net, own_model):
        features = extract(backbone, dogs, preprocessing=rule, image_size=16)
        head = heads.LogisticHead().fit(features.X, features.labels)
        bundle = make_bundle(features, head)
        bundle.to_openvino(tmp_path / "folder", backbone=backbone, overwrite=True)
        check(bundle, features, tmp_path / "folder")


@pytest.fixture
def own_model() -> Any:
    """A layer that has no counterpart in ONNX, and an open size."""
    from featcache.backbones.keras_backend import import_keras

    keras = import_keras()
    image = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    x = keras.layers.GroupNormalization(2)(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def test_a_folder_is_replaced_by_its_like_alone(
    features: featcache.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    folder = tmp_path / "dogs"
    folder.mkdir()
    (folder / "model.xml").write_text("")
    (folder / "thesis.txt").write_text("")
    with pytest.raises(InvalidRequest, match="exists and is not overwritten"):
        bundle.to_openvino(folder)
    with pytest.raises(InvalidRequest, match=r"holds 'thesis.txt'"):
        bundle.to_openvino(folder, overwrite=True)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InvalidRequest, match="is a link"):
        bundle.to_openvino(tmp_path / "link", overwrite=True)
    refuse(monkeypatch, Path, "rename", errno.ENOSPC)
    with pytest.raises(StoreWriteError, match="the disk is full"):
        bundle.to_openvino(tmp_path / "new")
    names = ["dogs", "link", "model.xml", "thesis.txt"]
    assert (
        sorted(p.name for p in (*tmp_path.iterdir(), *folder.iterdir()) if p.name != "cache")
        == names
    )


def test_what_openvino_refuses_is_an_error(
    features: featcache.Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino, "save_model", refused)
    with pytest.raises(NotExportable, match="cannot convert the network: no such operation"):
        bundle.to_openvino(tmp_path / "new")
    monkeypatch.setattr("featcache.engines.openvino_file.is_installed", lambda: False)
    with pytest.raises(MissingExtra, match="openvino"):
        bundle.to_openvino(tmp_path / "new")
    assert not (tmp_path / "new").exists()
