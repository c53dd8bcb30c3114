"""What a program finds unchanged in its process after it called this library."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import featcache
import heads
from bench import CachedHead, FineTuned, evaluate, make_split
from featcache._io.console import run_command
from featcache._io.logs import PACKAGES


def process_state() -> dict[str, Any]:
    """What belongs to the whole process and not to one library."""
    keras = featcache.import_keras()
    mask = os.umask(0)
    os.umask(mask)
    loggers = [logging.getLogger(name) for name in (None, *PACKAGES, "tensorflow")]
    status = os.fstat(2)
    return {
        "environment": dict(os.environ),
        "showwarning": warnings.showwarning,
        "filters": list(warnings.filters),
        "descriptor 2": (status.st_dev, status.st_ino),
        "logging": [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers],
        "policy": keras.config.dtype_policy().name,
        "keras": (keras.config.floatx(), keras.config.image_data_format(), keras.config.epsilon()),
        "random": random.getstate(),
        "numpy.random": repr(np.random.get_state()),
        "numpy errors": np.geterr(),
        "signals": {one: signal.getsignal(one) for one in signal.valid_signals()},
        "umask": mask,
        "threads": sorted((lib["filepath"], lib["num_threads"]) for lib in threadpool_info()),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    before = process_state()
    yield
    after = process_state()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Let each library be imported: what it sets at that moment is its own affair."""
    featcache.import_keras()
    X = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    for name in heads.HEADS:
        heads.make_head(name).fit(X, (X[:, 0] > 0).astype(int))


@pytest.mark.parametrize("engine", ["keras", "openvino"])
def test_extraction_leaves_the_process_as_it_was(photos: Path, tmp_path: Path, engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    for _ in range(2):  # computed, and stored
        with unchanged():
            featcache.extract("pocket", photos, cache_dir=tmp_path / "cache", engine=engine)


def test_a_saved_model_as_backbone_leaves_the_process_as_it_was(
    photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.keras"
    tiny_model.save(file)
    with unchanged():
        featcache.extract(file, photos, cache_dir=tmp_path / "cache", precision="bfloat16")


def test_errors_leave_the_process_as_it_was(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "00.png").write_bytes(b"no image")
    not_weights = tmp_path / "vgg16.weights.h5"
    not_weights.write_bytes(b"no weights")
    with unchanged():
        featcache.extract("pocket", photos, cache_dir=tmp_path / "cache")
        with pytest.raises(featcache.FeatcacheError):
            featcache.extract("vgg16", photos, weights=not_weights, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("name", sorted(heads.HEADS))
def test_training_and_predicting_leave_the_process_as_it_was(
    name: str, photos: Path, tmp_path: Path
) -> None:
    features = featcache.extract("pocket", photos, cache_dir=tmp_path / "cache")
    with unchanged():
        head = heads.make_head(name).fit(features.X, features.y)
        head.predict_proba(features.X)
        if not head.can_be_bundled:
            return
        bundle = featcache.make_bundle(features, head)
        bundle.save(tmp_path / "bundle.featcache")
        loaded = featcache.load_bundle(tmp_path / "bundle.featcache")
        loaded.predict(features.paths[:2], cache_dir=tmp_path / "cache")


def test_the_comparison_leaves_the_process_as_it_was(photos: Path, tmp_path: Path) -> None:
    split = make_split(featcache.load_dataset(photos), 0.5, 0, cache_dir=tmp_path / "cache")
    shared = {"cache_dir": tmp_path / "cache"}
    contenders = {
        "head": CachedHead("pocket", "logistic", **shared),
        "fine-tuned": FineTuned("pocket", 0.3, epochs=1, **shared),
    }
    with unchanged():
        evaluate(contenders, split, progress=False)


@pytest.mark.parametrize("error", [None, featcache.FeatcacheError, KeyboardInterrupt, KeyError])
def test_a_command_leaves_the_process_as_it_was(error: type[BaseException] | None) -> None:
    def action() -> int:
        if error is not None:
            raise error("told")
        return 7

    with unchanged(), contextlib.suppress(KeyError):
        run_command("x", action, quiet=False)


def test_a_command_without_handlers_shows_the_log_of_each_package_and_takes_its_own_away() -> None:
    """In a process of its own: here pytest has handlers."""
    code = (
        "import logging\n"
        "from featcache._io.console import run_command\n"
        "from featcache._io.logs import PACKAGES, get_logger\n"
        "def action():\n"
        "    for name in PACKAGES:\n"
        "        get_logger(f'{name}.module').info('of %s', name)\n"
        "    return 0\n"
        "run_command('x', action, quiet=False)\n"
        "run_command('x', action, quiet=True)\n"
        "assert not logging.root.handlers\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = "".join(f"of {name}\n" for name in PACKAGES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", expected)


# What changes the whole process, and the modules that do so: each puts back what it found, or
# runs in a process of its own.
CHANGES = {
    r"os\.environ(\[[^\]]*\] = |\.(setdefault|update|pop)\()|putenv": {
        "featcache/backbones/keras_backend.py", "bench/perf/worker.py",
    },
    r"os\.dup2": {
        "featcache/backbones/keras_backend.py", "featcache/_io/console.py", "bench/perf/worker.py",
    },
    r"warnings\.(showwarning =|simplefilter|filterwarnings|catch_warnings|filters)": {
        "featcache/_io/console.py", "featcache/_io/held_warnings.py",
    },
    r"logging\.(getLogger|basicConfig|root\.|captureWarnings)": {
        "featcache/_io/logs.py", "featcache/backbones/keras_backend.py",
    },
    r"get_logger\((?!__name__\)|name: str\))": set(),
    r"signal\.signal\(|os\.umask|os\.chdir|setrlimit|setrecursionlimit": {
        "featcache/hdf5/child.py", "featcache/hdf5/sandbox.py",
    },
    r"random\.(seed|setstate|set_state)\(|set_random_seed": {
        "featcache/backbones/keras_backend.py", "bench/tools/train_pocket.py",
    },
    r"set_(dtype_policy|global_policy|floatx|image_data_format|backend)\(|tf\.config": set(),
    r"^ *global ": {"featcache/hdf5/sandbox.py"},
}  # fmt: skip


@pytest.mark.parametrize("pattern", CHANGES)
def test_no_other_module_changes_the_process(pattern: str) -> None:
    root = Path(featcache.__file__).parents[1]
    found = {
        str(file.relative_to(root))
        for package in PACKAGES
        for file in (root / package).rglob("*.py")
        if re.search(pattern, file.read_text("utf-8"), re.MULTILINE)
    }
    assert found == CHANGES[pattern]


def test_keras_is_imported_without_a_trace() -> None:
    """In a process of its own: elsewhere Keras is imported already."""
    code = (
        "import os, logging, warnings\n"
        "from featcache import import_keras\n"
        "name, before = 'TF_CPP_MIN_LOG_LEVEL', os.fstat(2)\n"
        "os.environ.pop(name, None)\n"
        "import_keras()\n"
        "assert name not in os.environ\n"
        "assert os.fstat(2).st_ino == before.st_ino\n"
        "print(logging.getLogger('tensorflow').level, logging.root.level, logging.root.handlers)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    level, rest = done.stdout.split(" ", 1)
    assert int(level) < logging.ERROR
    assert rest == f"{logging.WARNING} []\n"
