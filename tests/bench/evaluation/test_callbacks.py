"""Callbacks: what they are told, and that a tracker which fails costs no result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
import featcache
from featcache.errors import InvalidRequest, MissingExtra


@pytest.fixture
def split(tmp_path: Path) -> bench.Split:
    images = np.random.default_rng(0).integers(0, 200, (24, 16, 16, 3), np.uint8)
    images[::2] //= 4
    dataset = featcache.load_dataset(images, labels=["dark", "bright"] * 12)
    return bench.make_split(dataset, 0.5, cache_dir=tmp_path)


@pytest.fixture
def contenders(tmp_path: Path) -> dict[str, bench.Contender]:
    return {
        name: bench.CachedHead("pocket", name, cache_dir=tmp_path) for name in ("knn", "logistic")
    }


class Recorder(bench.Callback):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_begin(self, split: Any, contenders: Any, random_state: int) -> None:
        self.calls.append(("begin", list(contenders), random_state, len(split.test)))

    def on_result(self, result: bench.Result) -> None:
        self.calls.append(("result", result.name, result.metrics["top1"]))

    def on_end(self, results: Any) -> None:
        self.calls.append(("end", None if results is None else len(results.results)))


def test_a_callback_is_told_of_each_result_in_turn(split: Any, contenders: Any) -> None:
    told = Recorder()
    results = bench.evaluate(
        contenders, split, random_state=3, callbacks=[told], progress=False
    )  # fmt: skip
    assert told.calls == [
        ("begin", ["knn", "logistic"], 3, 12),
        ("result", "knn", results["knn"].metrics["top1"]),
        ("result", "logistic", results["logistic"].metrics["top1"]),
        ("end", 2),
    ]


def test_a_callback_that_fails_costs_no_result(
    split: Any, contenders: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Unreachable(Recorder):
        def on_result(self, result: bench.Result) -> None:
            raise ConnectionError("the tracker is away")

    after = Recorder()
    with caplog.at_level(logging.WARNING):
        results = bench.evaluate(
            contenders, split, callbacks=[Unreachable(), after], progress=False
        )
    assert repr(results) == "<Results of 2 contenders on images, split random 0.5, seed 0>"
    assert [call[0] for call in after.calls] == ["begin", "result", "result", "end"]
    assert "Unreachable failed: the tracker is away" in caplog.text


def test_callbacks_hear_of_an_evaluation_that_ends_early(split: Any, contenders: Any) -> None:
    class Stop(Recorder):
        def on_result(self, result: bench.Result) -> None:
            raise KeyboardInterrupt

    told = Stop()
    with pytest.raises(KeyboardInterrupt):
        bench.evaluate(contenders, split, callbacks=[told], progress=False)
    assert told.calls[-1] == ("end", None)


@pytest.mark.parametrize("wrong", [Recorder, print, None])
def test_what_is_no_callback_is_refused(split: Any, contenders: Any, wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"on_begin, on_result, on_end"):
        bench.evaluate(contenders, split, callbacks=[wrong])
    with pytest.raises(InvalidRequest, match=r"must be a list of callbacks: \[callback\]"):
        bench.evaluate(contenders, split, callbacks=bench.Callback())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tracker", "package"), [(bench.MLflowCallback, "mlflow"), (bench.WandbCallback, "wandb")]
)
def test_a_tracker_says_which_package_it_needs(
    tracker: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra, match=f"pip install {package}"):
        tracker()


def test_mlflow_has_a_run_of_each_contender(
    split: Any, contenders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'runs.db'}")
    callback = bench.MLflowCallback("dogs", tags={"by": "test"})
    results = bench.evaluate(contenders, split, callbacks=[callback], progress=False)
    runs = {run.info.run_name: run.data for run in mlflow.search_runs(
        experiment_names=["dogs"], output_format="list")}  # fmt: skip
    assert set(runs) == {"knn", "logistic"}
    assert runs["knn"].metrics["top1"] == results["knn"].metrics["top1"]
    assert runs["knn"].params["split"] == "random 0.5, seed 0"
    assert runs["knn"].tags["by"] == "test"


def test_wandb_has_a_run_of_each_contender(
    split: Any, contenders: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    monkeypatch.chdir(tmp_path)
    callback = bench.WandbCallback("dogs", mode="offline", dir=str(tmp_path))
    bench.evaluate(contenders, split, callbacks=[callback], progress=False)
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
