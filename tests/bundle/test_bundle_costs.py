"""Bundles that would take more memory or time to predict with than their size suggests."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import Classifier, ClassifierStep, extract, load_bundle, make_bundle
from featcache.errors import BundleError, InvalidRequest

_MAX_BYTES = 256 * 2**20


def _peak(classifier: Classifier) -> int:
    tracemalloc.start()
    classifier.predict_proba(np.zeros((1024, classifier.width)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _linear(rows: int, columns: int) -> ClassifierStep:
    arrays = {"weights": np.ones((rows, columns), "f4"), "bias": np.zeros(columns, "f4")}
    return ClassifierStep("linear", arrays)


def _trees(roots: np.ndarray, left: np.ndarray) -> ClassifierStep:
    nodes = len(left)
    arrays = {
        "root": roots.astype("i4"), "column": np.zeros(nodes, "i4"),
        "threshold": np.ones(nodes), "left": left.astype("i4"), "right": left.astype("i4"),
        "value": np.zeros(nodes),
    }  # fmt: skip
    return ClassifierStep("trees", arrays)


def test_a_wide_step_takes_bounded_memory() -> None:
    steps = [_linear(3, 1), _linear(1, 200_000), _linear(200_000, 2)]  # 2.5 MB of weights
    assert _peak(Classifier(steps, ["cat", "dog"], 3)) < _MAX_BYTES


def test_trees_of_many_classes_take_bounded_memory() -> None:
    classes = 2000
    step = _trees(np.zeros(32 * classes), np.array([-1]))
    assert _peak(Classifier([step], list(range(classes)), 3)) < _MAX_BYTES


@pytest.mark.parametrize(("levels", "is_accepted"), [(256, True), (257, False), (1000, False)])
def test_trees_may_be_as_deep_as_the_limit(levels: int, is_accepted: bool) -> None:
    step = _trees(np.zeros(64), np.r_[np.arange(1, levels + 1), -1])
    if is_accepted:
        Classifier([step], [0, 1], 3).predict_proba(np.zeros((2, 3)))
        return
    with pytest.raises(InvalidRequest, match="more than 256 levels deep"):
        Classifier([step], [0, 1], 3)


def _edited(path: Path, edit: Any) -> Path:
    """Return a copy of a bundle whose record was edited."""
    copy = path.with_name("edited")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename == "bundle.json":
                record = json.loads(data)
                edit(record)
                data = json.dumps(record).encode()
            new.writestr(info.filename, data)
    return copy


def _use_an_array_twice(record: dict[str, Any]) -> None:
    record["steps"].append(record["steps"][0])


def _enlarge_images(record: dict[str, Any]) -> None:
    record["arguments"]["image_size"] = [4096, 4096]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_use_an_array_twice, "more than one array is 'arrays/0-"),
        (_enlarge_images, "image_size is 4,096 x 4,096; the limit is 4,194,304 pixels"),
    ],
)
def test_a_bundle_that_multiplies_its_size_is_refused(
    edit: Any, reason: str, photos: Path, tiny_model: object, tmp_path: Path
) -> None:
    features = extract(tiny_model, photos)
    classifier = Classifier([_linear(features.X.shape[1], 2)], ["cat", "dog"], features.X.shape[1])
    make_bundle(features, classifier).save(tmp_path / "bundle")
    load_bundle(_edited(tmp_path / "bundle", lambda record: None))
    with pytest.raises(BundleError, match=reason):
        load_bundle(_edited(tmp_path / "bundle", edit))
