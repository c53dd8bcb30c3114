"""Bundles as ONNX networks: the probabilities of photos, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from made_bundles import write_dogs
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import featcache
import heads
from featcache import Classifier, ClassifierStep, Normalization, extract, make_bundle
from featcache.backbones.onnx import library
from featcache.errors import BundleMismatch, InvalidRequest, MissingExtra, NotExportable
from onnx_files import cnn, transformer, write


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def features(dogs: Path) -> featcache.Features:
    return extract("pocket", dogs, image_size=(32, 40))


def read(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def pixels(paths: Sequence[str], size: tuple[int, int]) -> Any:
    """Photos as docs/serving.md prepares them without featcache."""
    shape = (size[1], size[0])
    return np.stack([
        np.asarray(Image.open(path).convert("RGB").resize(shape, Image.Resampling.BILINEAR))
        for path in paths
    ])  # fmt: skip


def check(
    bundle: featcache.Bundle, features: featcache.Features, path: Path, limit: float = 1e-4
) -> None:
    """The file gives the probabilities of the bundle, for photos of the file system."""
    size = bundle.parts[0].spec.image_size
    session = read(path)
    one_by_one = session.get_inputs()[0].shape[0] == 1
    expected = bundle.predict_proba(features)
    for images in np.array_split(pixels(features.paths, size), len(features) if one_by_one else 3):
        (found,) = session.run(None, {"images": images})
        assert found.dtype == np.float32
        assert np.abs(found - expected[: len(images)]).max() <= limit
        expected = expected[len(images) :]


def test_a_file_holds_the_steps_of_transformed_features(
    features: featcache.Features, tmp_path: Path
) -> None:
    for number, changed in enumerate((features.l2().standardize().pca(4), features.pca(3).l2())):
        bundle = make_bundle(changed, heads.LogisticHead(C=1).fit(changed.X, changed.labels))
        bundle.to_onnx(tmp_path / f"{number}.onnx")
        check(bundle, features, tmp_path / f"{number}.onnx")


def test_a_bundle_of_several_backbones_is_refused(
    dogs: Path, features: featcache.Features, tmp_path: Path
) -> None:
    both = featcache.concat([features, extract("pocket", dogs, image_size=32)])
    bundle = make_bundle(both, heads.LogisticHead(C=1).fit(both.X, both.labels))
    with pytest.raises(NotExportable, match="has 2 backbones, and a network file holds one"):
        bundle.to_onnx(tmp_path / "both.onnx")


def test_a_file_gives_the_probabilities_of_its_bundle(
    features: featcache.Features, tmp_path: Path
) -> None:
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    path = tmp_path / "new" / "dogs.onnx"
    bundle.to_onnx(path)
    check(bundle, features, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["dark", "grey", "light"]
    assert (metadata["image_size"], metadata["resize"]) == ("32x40", "stretch")
    assert metadata["key"] == features.spec.key
    (given,), (output,) = read(path).get_inputs(), read(path).get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["n", 32, 40, 3])
    assert (output.name, output.type, output.shape) == ("probabilities", "tensor(float)", ["n", 3])
    before = path.read_bytes()
    with pytest.raises(InvalidRequest, match=r"exists and is not overwritten.*--overwrite"):
        bundle.to_onnx(path)
    assert path.read_bytes() == before
    bundle.to_onnx(path, overwrite=True)
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["dogs.onnx"]


def test_a_file_is_a_backbone_too(features: featcache.Features, tmp_path: Path, dogs: Path) -> None:
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    bundle.to_onnx(tmp_path / "dogs.onnx")
    given = extract(tmp_path / "dogs.onnx", dogs, preprocessing="none")
    assert np.abs(given.X[:] - bundle.predict_proba(features)).max() <= 1e-4
    before = extract(tmp_path / "dogs.onnx", dogs, preprocessing="none", layer="embedding")
    np.testing.assert_allclose(before.X[:], features.X[:], atol=1e-4)


def trees(classes: int, width: int, count: int) -> ClassifierStep:
    """Complete trees of three levels, and one that is a leaf."""
    generator = np.random.default_rng(0)
    own = np.arange(count)[:, None] * 15
    inner, leaf = np.arange(7), np.full(8, -1)
    left = (own + np.r_[2 * inner + 1, leaf]).ravel()
    left[np.tile(np.arange(15) >= 7, count)] = -1
    right = np.where(left < 0, -1, left + 1)
    root = own.ravel()
    root[-1] += 14
    return ClassifierStep("trees", {
        "root": root, "left": left, "right": right,
        "column": generator.integers(0, width, 15 * count),
        "threshold": generator.uniform(0, 1, 15 * count),
        "value": generator.normal(size=15 * count),
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_each_kind_of_head_is_the_same(features: featcache.Features, tmp_path: Path) -> None:
    X, y, path = np.asarray(features.X), features.labels, tmp_path / "x.onnx"
    width = X.shape[1]
    scaled = make_pipeline(StandardScaler(), PCA(5), Normalizer(), LogisticRegression()).fit(X, y)
    flat = ClassifierStep("linear", {"weights": np.zeros((width, 3)), "bias": np.zeros(3)})
    for head in (
        scaled,
        MLPClassifier((4,), max_iter=5, random_state=0).fit(X, y),
        heads.LightGBMHead(n_estimators=4, num_leaves=4).fit(X, y),
        Classifier([trees(3, width, 9)], ["dark", "grey", "light"], width, 0.3),
        Classifier([flat, ClassifierStep("normalise")], ["dark", "grey", "light"], width, 2.0),
    ):
        bundle = make_bundle(features, head)
        bundle.to_onnx(path, overwrite=True)
        check(bundle, features, path)


def test_a_row_goes_the_same_way_at_a_threshold(tmp_path: Path) -> None:
    from featcache.backbones.to_onnx.writer import GraphWriter
    from featcache.bundle.head_graph import write_head
    from featcache.bundle.onnx_head import OnnxOperations

    rows = np.float32([[0.1], [np.nextafter(np.float32(0.1), np.float32(1))], [-0.1]])
    for threshold in (0.1, float(np.float32(0.1)), -0.1, 0.0):
        step = ClassifierStep("trees", {
            "root": np.array([0, 2]), "left": np.array([1, -1, -1]), "column": np.array([0, 0, 0]),
            "right": np.array([2, -1, -1]), "threshold": np.array([threshold, 0, 0]),
            "value": np.array([0.0, 3.0, -2.0]),
        })  # fmt: skip
        classifier = Classifier([step], [0, 1], 1)
        for opset in (11, 17, 18):
            writer = GraphWriter(opset)
            output = write_head(classifier, "float32", OnnxOperations(writer), "x")
            found = run(writer, output, rows)
            np.testing.assert_allclose(found, classifier.predict_proba(rows), atol=1e-6)
    with pytest.raises(NotExportable, match="version 11 of the operators"):
        write_head(classifier, "float32", OnnxOperations(GraphWriter(10)), "x")


def run(writer: Any, output: str, rows: Any) -> Any:
    make = onnx.helper
    graph = make.make_graph(
        writer.nodes, "head", [make.make_tensor_value_info("x", 1, ["n", rows.shape[1]])],
        [make.make_tensor_value_info(output, 1, None)], writer.weights,
    )  # fmt: skip
    model = make.make_model(
        graph, opset_imports=[make.make_opsetid("", writer.opset)], ir_version=8
    )
    return read(model.SerializeToString()).run(None, {"x": rows})[0]


def test_rows_are_rounded_as_in_training(dogs: Path, tmp_path: Path) -> None:
    features = extract("pocket", dogs, image_size=32, row_dtype="float16")
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    bundle.to_onnx(tmp_path / "x.onnx")
    check(bundle, features, tmp_path / "x.onnx", 1e-2)  # a number may be rounded the other way
    assert [n.op_type for n in onnx.load(tmp_path / "x.onnx").graph.node].count("Cast") == 3


@pytest.mark.parametrize("opset", [9, 18])
def test_an_onnx_network_is_continued(dogs: Path, tmp_path: Path, opset: int) -> None:
    net = write(tmp_path / "net.onnx", cnn(opset=opset))
    rule = Normalization(mean=(0.5, 0.4, 0.3), std=0.3, channels="bgr")
    features = extract(net, dogs, preprocessing=rule)
    bundle = make_bundle(features, make_pipeline(Normalizer(), LogisticRegression()).fit(
        np.asarray(features.X), features.labels))  # fmt: skip
    bundle.to_onnx(tmp_path / "whole.onnx", backbone=net)
    check(bundle, features, tmp_path / "whole.onnx")
    with pytest.raises(BundleMismatch, match="as backbone="):
        bundle.to_onnx(tmp_path / "other.onnx")
    if opset == 18:
        head = heads.LightGBMHead(n_estimators=2, num_leaves=3).fit(features.X, features.labels)
        bundle = make_bundle(features, head)
        bundle.to_onnx(tmp_path / "trees.onnx", backbone=net)
        check(bundle, features, tmp_path / "trees.onnx")


def test_a_network_of_one_image_stays_one(dogs: Path, tmp_path: Path) -> None:
    net = write(tmp_path / "net.onnx", transformer(batch=1))
    features = extract(net, dogs, preprocessing="unit", pooling="cls")
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    bundle.to_onnx(tmp_path / "whole.onnx", backbone=net)
    check(bundle, features, tmp_path / "whole.onnx")


def own_rule(images: Any) -> Any:
    return images / 300


def test_what_a_file_cannot_hold_is_refused(
    features: featcache.Features, dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.onnx"
    bundle = make_bundle(features, heads.LogisticHead().fit(features.X, features.labels))
    own = extract("pocket", dogs, image_size=32, preprocessing=own_rule)
    for other, message in (
        (make_bundle(own, bundle.classifier), "preprocessing of the bundle is a function"),
        (replace(bundle, spec=replace(bundle.spec, precision="bfloat16")), "computes in bfloat16"),
    ):
        with pytest.raises(NotExportable, match=message):
            other.to_onnx(path)
    *before, last = bundle.classifier.steps
    far = {
        **last.arrays,
        "bias": last.arrays["bias"] + np.float64(1e9),
    }  # the same, but for rounding
    steps = [*before, ClassifierStep("linear", far)]
    with pytest.raises(NotExportable, match=r"differ by up to .* not written"):
        replace(bundle, classifier=replace(bundle.classifier, steps=steps)).to_onnx(path)
    with pytest.raises(InvalidRequest, match="is a folder; name a file"):
        bundle.to_onnx(tmp_path, overwrite=True)
    with pytest.raises(InvalidRequest, match="null character"):
        bundle.to_onnx("a\0b")

    def missing() -> None:
        raise MissingExtra("no onnxruntime", package="onnxruntime")

    monkeypatch.setattr("featcache.bundle.network_files.import_onnxruntime", missing)
    with pytest.raises(MissingExtra):
        bundle.to_onnx(path)
    assert library.import_onnx() is onnx
    assert not path.exists()
