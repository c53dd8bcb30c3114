"""Training schedule: early stopping, and the learning rate of each step.

The rate is reduced on a plateau of the validation loss, or follows half a cosine (Loshchilov and
Hutter 2017, "SGDR", arXiv:1608.03983).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


RateSchedule = Literal["plateau", "cosine"]
RATE_SCHEDULES: tuple[RateSchedule, ...] = get_args(RateSchedule)


@dataclass(frozen=True)
class Schedule:
    """Parameters of a training schedule.

    Attributes
    ----------
    epochs : int
        Maximum number of epochs.
    batch_size : int
    learning_rate : float
        Initial learning rate.
    patience : int
        Number of epochs without a lower validation loss after which training stops.
    lr_patience : int
        Number of epochs without a lower validation loss after which the learning rate is
        multiplied by `factor`.
    factor : float
        Between 0 and 1.
    lr_schedule : {"plateau", "cosine"}
        ``"cosine"``: the learning rate falls to 0 along half a cosine over all epochs; then
        `lr_patience` and `factor` do nothing.
    warmup : float
        Number of epochs in which the learning rate rises from 0.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    lr_patience: int
    factor: float
    lr_schedule: RateSchedule = "plateau"
    warmup: float = 0.0

    def rate_at(self, present: float, epoch: int, part: float) -> float:
        """Return the learning rate of a training step.

        Parameters
        ----------
        present : float
            The rate after the reductions so far: `Progress.learning_rate`.
        epoch : int
            Number of epochs that are done.
        part : float
            How much of the next one is done, 0 to 1.

        Examples
        --------
        >>> schedule = Schedule(10, 32, 1.0, 9, 9, 0.5, "cosine", warmup=2)
        >>> [round(schedule.rate_at(1.0, epoch, 0.0), 2) for epoch in (0, 1, 2, 6, 10)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        at = epoch + part
        if at < self.warmup:
            return present * at / self.warmup
        if self.lr_schedule == "plateau":
            return present
        done = (at - self.warmup) / max(self.epochs - self.warmup, 1e-9)
        return present * (1 + math.cos(math.pi * min(1.0, done))) / 2


@dataclass
class Progress:
    """State of a training run after an epoch; plain values, as a checkpoint stores them.

    Attributes
    ----------
    learning_rate : float
        Present learning rate.
    epoch : int
        Number of epochs that are done.
    best_loss : float
        Lowest validation loss.
    waited : int
        Number of epochs since the lowest validation loss.
    since_cut : int
        The same, or the number of epochs since the learning rate was reduced if that is later.
    done : bool
        Whether training has ended.
    history : dict of str to list of float
        `COLUMNS`, one value per epoch; ``seconds`` is cumulative.
    """

    learning_rate: float
    epoch: int = 0
    best_loss: float = float("inf")
    waited: int = 0
    since_cut: int = 0
    done: bool = False
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    def record(
        self,
        schedule: Schedule,
        training: tuple[float, float],
        validation: tuple[float, float],
        seconds: float,
    ) -> bool:
        """Record an epoch; return whether its validation loss is the lowest so far.

        Parameters
        ----------
        schedule : Schedule
        training, validation : (float, float)
            Loss and accuracy.
        seconds : float
            Duration of the epoch.
        """
        total = seconds + (self.history["seconds"][-1] if self.epoch else 0.0)
        row = (*training, *validation, self.learning_rate, total)
        for name, value in zip(COLUMNS, row, strict=True):
            self.history[name].append(float(value))
        return after_epoch(self, schedule, validation[0])


def after_epoch(progress: Progress, schedule: Schedule, val_loss: float) -> bool:
    """Update the state by a validation loss; return whether it is the lowest so far."""
    progress.epoch += 1
    better = val_loss < progress.best_loss - 1e-5
    if better:
        progress.best_loss, progress.waited, progress.since_cut = val_loss, 0, 0
    else:
        progress.waited += 1
        progress.since_cut += 1
        if schedule.lr_schedule == "plateau" and progress.since_cut >= schedule.lr_patience:
            progress.learning_rate *= schedule.factor
            progress.since_cut = 0
    progress.done = progress.epoch >= schedule.epochs or progress.waited >= schedule.patience
    return better
