"""ONNX networks in bundles, comparisons and commands, and what is asked of them there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
import featcache
import featcache.cli
import heads
from featcache import Normalization, extract, load_backbone
from featcache.errors import BundleMismatch, EngineUnavailable, InvalidRequest, MissingExtra
from featcache.extraction.recheck import verify_sample
from onnx_files import cnn, transformer, write


def test_a_bundle_needs_the_same_network(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    rule = Normalization(mean=(0.5, 0.4, 0.3), std=0.3, channels="bgr")
    features = extract(file, photos, preprocessing=rule)
    head = heads.LogisticHead().fit(features)
    featcache.make_bundle(features, head).save(tmp_path / "b.featcache")
    bundle = featcache.load_bundle(tmp_path / "b.featcache")
    with pytest.raises(BundleMismatch, match=r"\.onnx file, as backbone="):
        bundle.predict(photos)
    moved = Path(shutil.copy(file, tmp_path / "moved.onnx"))
    found = bundle.predict(photos, backbone=moved)
    expected = head.predict(np.asarray(features.X))
    assert [p.top_classes[0][0] for p in found] == [features.classes[int(i)] for i in expected]
    write(moved, cnn(seed=1))
    with pytest.raises(BundleMismatch, match="in weights"):
        bundle.predict(photos, backbone=moved)
    assert bundle.file_options[0] == "--backbone"


def test_engines_of_the_other_kind_are_refused(
    photos: Path, tmp_path: Path, tiny_model: Any
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    for engine in ("keras", "tensorflow"):
        with pytest.raises(EngineUnavailable, match="is an ONNX network"):
            extract(file, photos, preprocessing="unit", engine=engine)
    with pytest.raises(EngineUnavailable, match="is a Keras model"):
        extract(tiny_model, photos, engine="onnxruntime")
    with pytest.raises(EngineUnavailable, match="float32 only"):
        extract(file, photos, preprocessing="unit", precision="bfloat16", engine="onnxruntime")


def test_a_model_of_pytorch_is_to_be_exported(photos: Path) -> None:
    class Network:
        def state_dict(self) -> dict[str, Any]:
            return {}

        def forward(self, x: Any) -> Any:
            return x

    for model in (Network(), "net.pt", Path("net.SafeTensors")):
        with pytest.raises(InvalidRequest, match=r"export it with torch\.onnx\.export\("):
            extract(model, photos)  # type: ignore[arg-type]


def test_the_command_line_takes_networks_and_normalizations(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path / "net.onnx", cnn()))
    command = [file, str(photos), "--layer", "relu", "--pooling", "max", "--json"]
    command += ["--preprocessing", "mean:0.4:std:0.3:channels:bgr"]
    assert featcache.cli.main(["extract", *command]) == 0
    assert json.loads(capsys.readouterr().out)["computed"] == 12
    assert featcache.cli.main(["explain", *command]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 12


def test_a_comparison_takes_networks(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    split = bench.make_split(featcache.load_dataset(photos), test_size=0.5, random_state=0)
    head = bench.CachedHead(str(file), "logistic", preprocessing="torch")
    results = bench.evaluate({"head": head}, split)
    assert "head" in str(results)
    described = head.network()
    assert (described["layers"], described["depth"], described["kinds"]["Conv"]) == (5, 2, 1)
    assert head.parts[0].parameters() == 162 + 5 * 6
    with pytest.raises(InvalidRequest, match="cannot be fine-tuned"):
        bench.FineTuned(str(file), 0.3, preprocessing="torch")
    with pytest.raises(InvalidRequest, match="cannot be trained"):
        load_backbone(file, preprocessing="torch").keras_backbone  # noqa: B018


def test_a_store_of_a_network_can_be_recomputed(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", transformer())
    rule = Normalization(mean=0.3, std=(0.3, 0.2, 0.1))
    features = extract(file, photos, preprocessing=rule, pooling="cls", engine="openvino")
    found = verify_sample(features.summary.folder, photos, 5, backbone=file)
    assert found.images == 5
    assert not found.differing


def test_stored_features_need_onnx_alone(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    extract(file, photos, preprocessing="torch")
    code = (
        "import sys, featcache, numpy\n"
        "before = [m for m in ('onnx', 'onnxruntime') if m in sys.modules]\n"
        f"f = featcache.extract({str(file)!r}, {str(photos)!r}, preprocessing='torch')\n"
        "numpy.asarray(f.X)\n"
        "names = ('onnx', 'onnxruntime', 'openvino', 'keras', 'tensorflow')\n"
        "print(before, f.summary.computed, [m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 0 ['onnx']"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[onnx\]'"):
        load_backbone(file, preprocessing="unit", cache_dir=tmp_path)
