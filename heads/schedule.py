"""When training by epochs reduces its learning rate, and when it stops."""

from __future__ import annotations

from dataclasses import dataclass, field

COLUMNS = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclass(frozen=True)
class Schedule:
    """How long to train.

    Attributes
    ----------
    epochs : int
        At most.
    batch_size : int
    learning_rate : float
        To begin with.
    patience : int
        Epochs without a better validation loss until training stops.
    lr_patience, factor : int, float
        Epochs without one until the learning rate is multiplied by `factor`.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    lr_patience: int
    factor: float


@dataclass
class Progress:
    """Where a run stands after an epoch; plain values, fit for a checkpoint.

    Attributes
    ----------
    learning_rate : float
    epoch : int
        Epochs done.
    best_loss : float
        Lowest validation loss.
    waited, since_cut : int
        Epochs without a better one, since the best and since the rate was last cut.
    done : bool
    history : dict of str to list of float
        `COLUMNS`, one value an epoch; ``seconds`` is cumulative.
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
        """Take in an epoch's loss and accuracy; True if its validation loss is the best yet.

        Parameters
        ----------
        schedule : Schedule
        training, validation : (float, float)
            Loss and accuracy.
        seconds : float
            That the epoch took.
        """
        total = seconds + (self.history["seconds"][-1] if self.epoch else 0.0)
        row = (*training, *validation, self.learning_rate, total)
        for name, value in zip(COLUMNS, row, strict=True):
            self.history[name].append(float(value))
        return after_epoch(self, schedule, validation[0])


def after_epoch(progress: Progress, schedule: Schedule, val_loss: float) -> bool:
    """Update counters and learning rate by a validation loss; True if it is the best yet."""
    progress.epoch += 1
    better = val_loss < progress.best_loss - 1e-5
    if better:
        progress.best_loss, progress.waited, progress.since_cut = val_loss, 0, 0
    else:
        progress.waited += 1
        progress.since_cut += 1
        if progress.since_cut >= schedule.lr_patience:
            progress.learning_rate *= schedule.factor
            progress.since_cut = 0
    progress.done = progress.epoch >= schedule.epochs or progress.waited >= schedule.patience
    return better
