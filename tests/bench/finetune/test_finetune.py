"""Fine-tuning: the best epoch serves, and a run that was interrupted ends as if it had not been."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import NO_AUGMENTATION, Augmentation, Contender, FineTuned, Training
from bench.finetune.training import Run
from conftest import make_tiny_model
from contracts import ContenderContract
from featcache.errors import InvalidRequest
from heads.schedule import Progress, Schedule, after_epoch

QUICK: dict[str, Any] = {
    "units": (16,), "dropout": 0.1, "epochs": 12, "learning_rate": 0.02, "batch_size": 8,
    "augmentation": NO_AUGMENTATION, "image_size": None,
}  # fmt: skip


class TestFineTuned(ContenderContract):
    def make(self) -> Contender:
        return FineTuned(make_tiny_model(), 1.0, **QUICK)


def test_the_schedule_cuts_the_rate_on_a_plateau_and_stops_after_patience() -> None:
    schedule = Schedule(
        epochs=50, batch_size=8, learning_rate=1.0, patience=5, lr_patience=2, factor=0.1
    )
    progress, best = Progress(1.0), []
    losses = [3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0.5]
    for loss in losses:
        best.append(after_epoch(progress, schedule, loss))
        if progress.done:
            break
    assert best == [True, True, False, False, True, False, False, False, False, False]
    assert progress.learning_rate == pytest.approx(1e-3)
    assert progress.best_loss == 1


def test_weights_of_the_best_epoch_serve_not_those_of_the_last(easy_images: Any) -> None:
    images, codes = easy_images
    settings = {**QUICK, "learning_rate": 0.5, "epochs": 6, "validation_fraction": 0.4}
    contender = FineTuned(make_tiny_model(), 1.0, **settings)
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, random_state=0, progress=False)
    from bench.finetune.parts import training_parts

    _, held_out = training_parts(Training(images, codes, 2), 0.4)
    # The temperature only divides the scores; undone, the validation loss is the trained one's.
    proba = contender.predict_proba(images.take(held_out)) ** contender.temperature_
    proba /= proba.sum(axis=1, keepdims=True)
    loss = -np.log(np.clip(proba[np.arange(len(held_out)), codes[held_out]], 1e-7, 1)).mean()
    assert loss == pytest.approx(min(contender.facts().history["val_loss"]), abs=1e-3)


def test_what_was_trained_is_not_trained_again(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, codes = easy_images
    first = FineTuned(make_tiny_model(), 1.0, **QUICK)
    first.prepare(images, progress=False)
    first.fit(images, codes, 2, progress=False)
    monkeypatch.setattr(
        "bench.finetune.training.Run._epoch", lambda *_: pytest.fail("trained again")
    )
    again = FineTuned(make_tiny_model(), 1.0, **QUICK)
    again.prepare(images, progress=False)
    again.fit(images, codes, 2, progress=False)
    assert np.allclose(again.predict_proba(images), first.predict_proba(images), atol=1e-6)
    assert again.facts().fit_seconds == first.facts().fit_seconds


def test_few_images_are_cross_fitted_once_and_the_folds_are_removed(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, codes = easy_images
    folds = []
    fold = FineTuned._fold
    monkeypatch.setattr(FineTuned, "_fold", lambda *a: (folds.append(len(a[2])), fold(*a))[1])
    contender = FineTuned(make_tiny_model(), 1.0, **QUICK)
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    assert len(folds) == 3
    assert max(folds) < len(images)
    assert contender.temperature_ != 1.0
    assert not list(contender.folder.glob("fold-*"))
    before = contender.temperature_, contender.predict_proba(images)
    contender.fit(images, codes, 2, progress=False)
    assert len(folds) == 3
    assert contender.temperature_ == before[0]
    assert np.allclose(contender.predict_proba(images), before[1], atol=1e-6)
    (contender.folder / "calibration.json").write_text("{}")
    contender.fit(images, codes, 2, progress=False)
    assert contender.temperature_ == pytest.approx(before[0], rel=1e-2)


def test_enough_validation_images_give_the_temperature_themselves(tmp_path: Path) -> None:
    from bench.finetune.calibration import calibrate
    from heads.calibration import fit_temperature

    codes = np.arange(120) % 3
    logits = np.random.default_rng(0).normal(size=(120, 3)) + 2 * np.eye(3)[codes]
    proba = np.exp(5 * logits) / np.exp(5 * logits).sum(axis=1, keepdims=True)
    unseen = np.arange(60)
    found, _ = calibrate(
        tmp_path, None, codes, unseen, lambda _, rows: proba[rows],
        lambda _: pytest.fail("trained"), 0,
    )  # fmt: skip
    logs = np.log(np.clip(proba, 1e-30, 1))
    assert found == pytest.approx(fit_temperature(logs[unseen], codes[unseen]))
    assert found > 2


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 13},
        pytest.param({"dropout": 0.2}, marks=pytest.mark.slow),
        pytest.param({"units": (8,)}, marks=pytest.mark.slow),
        {"augmentation": Augmentation()},
    ],
)
def test_another_setting_is_another_run(easy_images: Any, changes: dict[str, Any]) -> None:
    images, codes = easy_images
    folders = []
    for settings in (QUICK, {**QUICK, **changes}):
        contender = FineTuned(make_tiny_model(), 1.0, **{**settings})
        contender.prepare(images, progress=False)
        contender.schedule = (
            Schedule(1, 8, 0.01, 1, 1, 0.5) if "epochs" not in changes else contender.schedule
        )
        contender.fit(images, codes, 2, progress=False)
        folders.append(contender.folder)
    assert folders[0] != folders[1]


def test_what_names_a_run_keeps_its_names_so_that_earlier_runs_are_found(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.finetune import run_settings
    from heads.schedule import Progress

    images, codes = easy_images
    contender = FineTuned(make_tiny_model(), 1.0, **QUICK)
    contender.prepare(images, progress=False)
    training = Training(images, codes, 2, 7)
    network, contender._resolved, _ = contender._build(training)
    contender._first_free = network.first_free
    seen: dict[str, Any] = {}
    monkeypatch.setattr(run_settings, "content_key", lambda record: seen.update(record) or "0" * 64)
    contender._run_folder(training)
    assert set(seen) == {
        "version", "spec", "examples", "order", "classes", "seed", "unfreeze", "top",
        "initial_head", "views", "layer_decay", "label_smoothing", "schedule", "validation",
        "class_weight",
    }  # fmt: skip
    assert (seen["version"], seen["seed"]) == (3, 7)
    assert seen["schedule"] == [repr(v) for v in vars(contender.schedule).values()]
    assert {"learning_rate", "epoch", "best_loss", "waited", "since_cut", "done", "history"} == set(
        vars(Progress(0.1))
    )


def _cut(checkpoint: Path) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])


def _with_best_of_another_shape(checkpoint: Path) -> None:
    arrays = dict(np.load(checkpoint))
    np.savez(checkpoint, **{**arrays, "best0": np.zeros((2, 2), np.float32)})


def _without_history(checkpoint: Path) -> None:
    arrays = dict(np.load(checkpoint))
    arrays["progress"] = np.frombuffer(b'{"learning_rate": 0.1, "epoch": 1}', np.uint8)
    np.savez(checkpoint, **arrays)


@pytest.mark.parametrize("damage", [_cut, _with_best_of_another_shape, _without_history])
def test_a_damaged_checkpoint_is_not_trusted(
    easy_images: Any, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    images, codes = easy_images
    contender = FineTuned(make_tiny_model(), 1.0, **QUICK)
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    damage(contender.folder / "checkpoint.npz")
    contender.model_file.write_bytes(b"of an earlier training")
    contender.fit(images, codes, 2, progress=False)
    assert "training starts again" in caplog.text
    assert contender.facts().history["val_accuracy"][-1] > 0.5
    assert zipfile.is_zipfile(contender.model_file)


def test_a_damaged_model_file_is_written_again(
    easy_images: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images, codes = easy_images
    contender = FineTuned(make_tiny_model(), 1.0, **{**QUICK, "epochs": 1})
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    written = contender.model_file.stat().st_mtime_ns
    contender.fit(images, codes, 2, progress=False)
    assert contender.model_file.stat().st_mtime_ns == written
    whole = bytearray(contender.model_file.read_bytes())
    whole[len(whole) // 2] ^= 1
    contender.model_file.write_bytes(whole)
    contender.fit(images, codes, 2, progress=False)
    assert "model.keras is damaged; it is written again" in caplog.text
    assert zipfile.ZipFile(contender.model_file).testzip() is None


def test_a_fold_whose_folder_another_process_removes_is_trained_to_its_end(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, codes = easy_images
    epoch = Run._epoch

    def removed(self: Run, *arguments: Any) -> Any:
        if "fold-" in self.folder.name:
            shutil.rmtree(self.folder)
        return epoch(self, *arguments)

    monkeypatch.setattr(Run, "_epoch", removed)
    contender = FineTuned(make_tiny_model(), 1.0, **{**QUICK, "epochs": 2})
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    assert not list(contender.folder.glob("fold-*"))


def test_the_saved_model_is_read_in_safe_mode_and_says_the_same(easy_images: Any) -> None:
    import keras

    images, codes = easy_images
    contender = FineTuned(make_tiny_model(), 1.0, **QUICK)
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    loaded = keras.saving.load_model(contender.model_file, safe_mode=True)
    shape = loaded.input_shape[1:3]
    pixels = np.stack([images.pixels(i, shape, "stretch") for i in range(len(images))]).astype(
        "float32"
    )
    assert np.allclose(
        loaded.predict(pixels, verbose=0), contender.predict_proba(images), atol=1e-5
    )


def test_your_own_model_is_left_as_it_was(easy_images: Any) -> None:
    images, codes = easy_images
    model = make_tiny_model()
    before = [w.copy() for w in model.get_weights()]
    contender = FineTuned(model, 1.0, **QUICK)
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, progress=False)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(layer.trainable for layer in model.layers)


def test_balanced_classes_weigh_rare_ones_more() -> None:
    from bench.finetune.parts import class_weights

    assert class_weights(np.array([0, 0, 0, 1]), 3).tolist() == pytest.approx([2 / 3, 2, 2 * 1.0])
    with pytest.raises(InvalidRequest, match="class_weight"):
        FineTuned("mobilenet", class_weight="auto")


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from conftest import make_tiny_model
import numpy as np
from bench import Augmentation, FineTuned, Images
import json
paths, ids, codes = json.load(open({images!r}))
contender = FineTuned(make_tiny_model(), 1.0, units=(16,), epochs=6, learning_rate=0.01,
                      batch_size=8, patience=9, augmentation=Augmentation(), cache_dir={cache!r})
images = Images(tuple(paths), tuple(ids))
contender.prepare(images, progress=False)
contender.fit(images, np.array(codes), 2, random_state=3, progress=False)
print(json.dumps(contender.facts().history["val_loss"]))
"""


@pytest.mark.slow
def test_killed_in_epoch_3_and_resumed_it_ends_as_an_uninterrupted_run(
    easy_images: Any, tmp_path: Path
) -> None:
    import json

    images, codes = easy_images
    (tmp_path / "images.json").write_text(json.dumps([images.paths, images.ids, codes.tolist()]))

    def start(cache: str, slow: str = "") -> subprocess.Popen[str]:
        code = CHILD.format(
            tests=str(Path(__file__).parents[2]),
            images=str(tmp_path / "images.json"),
            cache=str(tmp_path / cache),
        )
        return subprocess.Popen(
            [sys.executable, "-c", slow + code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    slow = (
        "import bench.finetune.training as t, time\n"
        "epoch = t.Run._epoch\n"
        "def slowly(self, *a):\n"
        "    if self.progress.epoch == 2: print('third', flush=True); time.sleep(60)\n"
        "    return epoch(self, *a)\n"
        "t.Run._epoch = slowly\n"
    )
    killed = start("a", slow)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "third\n"
    time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    resumed, err = start("a").communicate()
    whole, _ = start("b").communicate()
    assert resumed, err
    one, other = json.loads(resumed), json.loads(whole)
    assert len(one) == len(other) == 6
    assert np.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0}, {"batch_size": 0}, {"learning_rate": float("nan")}, {"patience": 0},
        {"lr_patience": 1.5}, {"factor": 7.0}, {"warmup": -1}, {"dropout": 1.0},
        {"validation_fraction": 1.5}, {"max_cache": -1}, {"units": (0,)},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    ((name, _),) = options.items()
    with pytest.raises(InvalidRequest, match=name):
        FineTuned("pocket", **options)
