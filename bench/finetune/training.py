"""A training run that resumes after an interruption with the same result as without one."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.toolkit import (
    all_layers,
    format_count,
    get_logger,
    make_folder,
    progress_bar,
    quiet_log,
    write_atomic,
)
from heads.schedule import COLUMNS, Progress, Schedule

from ..contenders.measure import Estimate, seconds_of
from .network import Network

log = get_logger(__name__)

Arrays = list[NDArray[Any]]


class Run:
    """A training run with a checkpoint per epoch.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    folder : Path
        Folder of the checkpoint, used by this run alone.
    schedule : Schedule
    random_state : int
        Shuffling and random layers depend on it and the number of the epoch alone, so that a
        resumed run is equal to an uninterrupted one.
    """

    def __init__(self, model: Any, folder: Path, schedule: Schedule, random_state: int) -> None:
        self.model, self.folder, self.schedule, self.random_state = (
            model,
            folder,
            schedule,
            random_state,
        )
        self.progress = Progress(schedule.learning_rate)
        self._state = [*model.trainable_variables, *_moving_statistics(model)]
        self._best: Arrays = self._values()
        self.model.optimizer.build(self.model.trainable_variables)
        self.resumed_at = self._restore()

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / "checkpoint.npz"

    def train(
        self,
        read: Callable[[NDArray[Any], int | None], NDArray[Any]],
        codes: NDArray[Any],
        train: NDArray[np.int64],
        validation: NDArray[np.int64],
        class_weights: NDArray[np.float32] | None = None,
        show: bool | None = None,
    ) -> None:
        """Train until the schedule ends, with a checkpoint after each epoch.

        The model then has the weights of the best epoch.

        Parameters
        ----------
        read : callable
            Returns the inputs of the model, float32, for an array of positions and the number
            of the epoch that they are read for; None for validation.
        codes : ndarray
            Class of each position, or another target of the model's loss.
        train, validation : ndarray
            Positions of the training and validation images.
        class_weights : ndarray (k,), optional
            Weight of each class; default: 1.
        show : bool, optional
            Show progress bars. Default: if standard error is a terminal.
        """
        make_folder(self.folder, private=True)  # refused before an epoch is trained
        steps = -(-len(train) // self.schedule.batch_size)
        while not self.progress.done:
            number = self.progress.epoch + 1
            title = f"Epoch {number}/{self.schedule.epochs}"
            started = time.perf_counter()
            with quiet_log(), progress_bar(steps, title, "batches", show) as bar:
                loss, accuracy = self._epoch(read, codes, train, class_weights, bar)
                val_loss, val_accuracy = self._validate(read, codes, validation)
                bar.set_postfix_str(
                    f"loss {loss:.4f} acc {accuracy:.4f} "
                    f"val_loss {val_loss:.4f} val_acc {val_accuracy:.4f}"
                )
            seconds = time.perf_counter() - started
            result = ((loss, accuracy), (val_loss, val_accuracy), seconds)
            if self.progress.record(self.schedule, *result):
                self._best = self._values()
            self._save()
            log.info(
                "%s: loss %.4f, accuracy %.4f; validation %.4f, %.4f",
                title, loss, accuracy, val_loss, val_accuracy,
            )  # fmt: skip
        for variable, best in zip(self._state, self._best, strict=True):
            variable.assign(best)

    def _epoch(
        self, read: Any, codes: Any, train: Any, weights: Any, bar: Any
    ) -> tuple[float, float]:
        epoch = self.progress.epoch
        self._reseed(epoch)
        order = np.random.default_rng([self.random_state, epoch]).permutation(train)
        size = min(self.schedule.batch_size, len(order))
        count = -(-len(order) // size)
        totals = np.zeros(2)
        # The last batch is filled up with the first rows: each further shape would be compiled.
        batches = np.resize(order, count * size).reshape(count, size)
        inputs = read_ahead(lambda rows: read(rows, epoch), batches)
        for done, (rows, batch) in enumerate(zip(batches, inputs, strict=True), start=1):
            rate = self.schedule.rate_at(self.progress.learning_rate, epoch, done / count)
            self.model.optimizer.learning_rate.assign(rate)
            each = None if weights is None else weights[codes[rows]]
            # Keras returns loss and accuracy per batch; those of the epoch are their means.
            values = self.model.train_on_batch(batch, codes[rows], sample_weight=each)
            totals += [float(values[0]), float(values[1])]
            mean = totals / done
            bar.set_postfix_str(f"loss {mean[0]:.4f} acc {mean[1]:.4f}", refresh=False)
            bar.update()
        return float(totals[0] / count), float(totals[1] / count)

    def _validate(self, read: Any, codes: Any, rows: Any) -> tuple[float, float]:
        proba = predict(self.model, plain(read), rows, self.schedule.batch_size)
        own = np.clip(proba[np.arange(len(rows)), codes[rows]], 1e-7, 1)
        return float(-np.log(own).mean()), float(np.mean(proba.argmax(axis=1) == codes[rows]))

    def _reseed(self, epoch: int) -> None:
        states = [v for v in self.model.variables if "seed_generator_state" in v.path]
        # From the end: layers of the frozen part, which a stored boundary leaves out, come first.
        for number, state in enumerate(reversed(states)):
            start = [self.random_state * 1009 + number, epoch + 1]
            state.assign(np.array(start, dtype=np.asarray(state).dtype))

    def _values(self) -> Arrays:
        return [np.asarray(v).copy() for v in self._state]

    def _save(self) -> None:
        arrays = {f"weight{i}": value for i, value in enumerate(self._values())}
        arrays |= {f"best{i}": value for i, value in enumerate(self._best)}
        arrays |= {
            f"optimizer{i}": np.asarray(v) for i, v in enumerate(self.model.optimizer.variables)
        }
        text = json.dumps(asdict(self.progress)).encode()
        out = io.BytesIO()
        np.savez(out, progress=np.frombuffer(text, np.uint8), **arrays)  # type: ignore[arg-type]
        # Again, since another process that ends the same run removes the folders of its folds.
        make_folder(self.folder, private=True)
        write_atomic(self.checkpoint, out.getvalue(), description="a checkpoint")

    def _restore(self) -> int:
        """Restore the last checkpoint; return its epoch, 0 if there is no valid one."""
        if not self.checkpoint.is_file():
            return 0
        weights, optimizer = self._state, self.model.optimizer.variables
        try:
            # Opened here, since np.load leaves a damaged file open.
            with open(self.checkpoint, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                progress = _read_progress(bytes(file["progress"]))
                values = [file[f"weight{i}"] for i in range(len(weights))]
                best = [file[f"best{i}"] for i in range(len(weights))]
                states = [file[f"optimizer{i}"] for i in range(len(optimizer))]
            targets = [*weights, *optimizer]
            for variable, value in zip(
                [*targets, *weights], [*values, *states, *best], strict=True
            ):
                if tuple(variable.shape) != value.shape:
                    raise ValueError("a shape differs")
            for variable, value in zip(targets, [*values, *states], strict=True):
                variable.assign(value)
        except Exception as error:  # a damaged archive raises many kinds of errors
            log.warning("%s is damaged (%s); training starts again.", self.checkpoint, error)
            return 0
        self.progress, self._best = progress, best
        return progress.epoch


def _read_progress(text: bytes) -> Progress:
    """Return the state of a schedule from a checkpoint; raise an error if it is incomplete."""
    progress = Progress(**json.loads(text))
    if {name: len(v) for name, v in progress.history.items()} != dict.fromkeys(
        COLUMNS, progress.epoch
    ):
        raise ValueError("its history does not have a value per epoch")
    return progress


def _moving_statistics(model: Any) -> list[Any]:
    """Return the variables that training changes without a gradient; a checkpoint needs them."""
    return [
        variable
        for layer in all_layers(model)
        if type(layer).__name__ == "BatchNormalization" and layer.trainable
        for variable in layer.non_trainable_variables
    ]


def read_ahead(
    read: Callable[[NDArray[Any]], NDArray[Any]], batches: Iterable[NDArray[Any]]
) -> Iterator[NDArray[Any]]:
    """Yield what `read` returns for each batch; the next one is read while one is in use."""
    with ThreadPoolExecutor(1, "bench-read") as reader:
        waiting = None
        for rows in batches:
            following = reader.submit(read, rows)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def plain(
    read: Callable[[NDArray[Any], int | None], NDArray[Any]],
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return a function that reads the inputs of positions as for validation."""
    return lambda rows: read(rows, None)


def predict(
    model: Any, read: Callable[[NDArray[Any]], NDArray[Any]], rows: NDArray[Any], size: int
) -> NDArray[np.float64]:
    """Return the output (n, k) of a model for rows, computed in batches of one shape."""
    parts = []
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        padded = np.resize(chosen, size) if len(chosen) < size else chosen
        with quiet_log():
            out = np.asarray(model.predict_on_batch(read(padded)), np.float64)
        parts.append(out[: len(chosen)])
    return np.concatenate(parts)


def training_estimate(network: Network, schedule: Schedule, n_train: int, what: str) -> Estimate:
    """Estimate training for all epochs, from a measured step."""
    model, size = network.trained, schedule.batch_size
    batch = np.zeros((size, *model.input_shape[1:]), np.float32)
    step = seconds_of(lambda: model.train_on_batch(batch, np.zeros(size, np.int64)), times=1)
    steps = schedule.epochs * -(-n_train // size)
    trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    # A checkpoint holds the trained weights, the best ones and Adam's two moments.
    room = 16 * trained + 4 * int(network.full.count_params())
    epochs = format_count(schedule.epochs, "epoch")
    return Estimate(f"{epochs} of {what}", steps * step, room, at_most=True)
