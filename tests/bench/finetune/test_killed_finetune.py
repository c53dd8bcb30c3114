"""A fine-tune killed while it computes the boundary, and again in training, ends as another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from block_model import SETTINGS, blocks

import featcache
from bench import FineTuned, Images
from bench.finetune.training import Run
from featcache.extraction import runner
from featcache.extraction.pipeline import batches
from featcache.store.store import Store

N_IMAGES, N_VIEWS = 40, 3
OPTIONS: dict[str, Any] = {**SETTINGS, "epochs": 4, "boundary_dtype": "float16"}
CHILD = """
import sys
sys.path[:0] = {paths!r}
import test_killed_finetune as test
test.run_until_killed({step!r}, {images!r}, {cache!r})
"""


def train(images: Images, codes: Any, cache: str) -> FineTuned:
    contender = FineTuned(blocks(), "b2_conv", cache_dir=cache, **OPTIONS)
    contender.prepare(images, progress=False)
    contender.fit(images, np.array(codes), 2, random_state=1, progress=False)
    return contender


def kill_at(count: int, function: Any) -> Any:
    """A function that kills this process at its `count`-th call, instead of that call."""
    calls: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return counted


def run_until_killed(step: str, images: str, cache: str) -> None:
    """Train in this process until it kills itself in the middle of a step."""
    paths, ids, codes = json.loads(Path(images).read_text())
    if step == "boundary":  # 5 commits of the images themselves, then those of views
        few = lambda items, load, _, workers: batches(items, load, lambda: 8, workers)  # noqa: E731
        runner.batches = few  # type: ignore[attr-defined]
        runner._COMMIT_INTERVAL_SECONDS = 0.0
        Store.append = kill_at(9, Store.append)  # type: ignore[method-assign]
    else:
        epoch = Run._epoch

        def third(self: Run, read: Any, *arguments: Any) -> Any:
            if self.progress.epoch == 2:
                read = kill_at(3, read)
            return epoch(self, read, *arguments)

        Run._epoch = third  # type: ignore[method-assign]
    train(Images(tuple(paths), tuple(ids)), codes, cache)


def killed(step: str, images: Path, cache: Path) -> None:
    """Run a process that is killed in the middle of a step."""
    here = Path(__file__).parent
    code = CHILD.format(
        paths=[str(here), str(here.parents[1])], step=step, images=str(images), cache=str(cache)
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def rows_stored(cache: Path) -> int:
    """The rows of the boundary: those whose spec says float16."""
    folders = [path for path in (cache / "stores").iterdir() if any(path.glob("*.h5"))]
    stores = [Store(folder) for folder in folders]
    return sum(len(store) for store in stores if store.dtype == np.float16)


@pytest.mark.slow
def test_killed_in_the_boundary_and_in_training_it_ends_as_an_uninterrupted_run(
    easy_images: Any, tmp_path: Path
) -> None:
    images, codes = easy_images
    record = tmp_path / "images.json"
    record.write_text(json.dumps([images.paths, images.ids, codes.tolist()]))
    killed("boundary", record, tmp_path / "a")
    stored = rows_stored(tmp_path / "a")
    assert N_IMAGES < stored < N_IMAGES * N_VIEWS
    killed("training", record, tmp_path / "a")
    assert rows_stored(tmp_path / "a") == N_IMAGES * N_VIEWS
    resumed = train(images, codes, str(tmp_path / "a"))
    assert resumed.facts().computed_now == 0
    assert resumed._run.resumed_at == 2
    for folder in (tmp_path / "a" / "stores").iterdir():
        assert featcache.verify(folder) == []
    whole = train(images, codes, str(tmp_path / "b"))
    assert whole._run.resumed_at == 0
    one, other = resumed.facts().history, whole.facts().history
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        assert len(one[name]) == 4
        assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-7)
    for mine, theirs in zip(resumed.model.weights, whole.model.weights, strict=True):
        if "seed_generator" not in mine.path:
            assert np.allclose(mine, theirs, rtol=1e-5, atol=1e-6), mine.path
