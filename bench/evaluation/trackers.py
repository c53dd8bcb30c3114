"""Experiment trackers as callbacks: MLflow, and Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from featcache.errors import MissingExtra

from ..splits import Split
from .callbacks import Callback
from .results import Result

# MLflow refuses longer values.
_MAX_CHARACTERS = 500


class MLflowCallback(Callback):
    """Log each contender as a run of MLflow: parameters, metrics and costs.

    Where it is logged is MLflow's own setting: ``mlflow.set_tracking_uri`` or
    ``MLFLOW_TRACKING_URI``.

    Parameters
    ----------
    experiment : str, optional
        Name of the experiment. Default: the one that is set.
    tags : mapping of str to str, optional
        Tags of each run.

    Raises
    ------
    MissingExtra
        If mlflow is not installed.
    """

    def __init__(self, experiment: str | None = None, tags: Mapping[str, str] | None = None):
        self._mlflow = _import("mlflow")
        self.experiment, self.tags = experiment, dict(tags or {})
        self._common: dict[str, str] = {}

    def on_begin(self, split: Split, contenders: Sequence[str], random_state: int) -> None:
        """Choose the experiment."""
        if self.experiment is not None:
            self._mlflow.set_experiment(self.experiment)
        self._common = _split_parameters(split, random_state)

    def on_result(self, result: Result) -> None:
        """Log a contender as a run of its name."""
        # Nested, so that an open run of the caller stays as it is.
        nested = self._mlflow.active_run() is not None
        with self._mlflow.start_run(run_name=result.name, tags=self.tags or None, nested=nested):
            parameters = {**self._common, **_parameters(result)}
            self._mlflow.log_params({k: v[:_MAX_CHARACTERS] for k, v in parameters.items()})
            self._mlflow.log_metrics(_numbers(result))


class WandbCallback(Callback):
    """Log each contender as a run of Weights & Biases: configuration, metrics and costs.

    Parameters
    ----------
    project : str, optional
        Default: ``WANDB_PROJECT``.
    group : str, optional
        Groups the runs of one evaluation. Default: the name of the split.
    **options
        Further arguments of ``wandb.init``, such as ``mode="offline"``.

    Raises
    ------
    MissingExtra
        If wandb is not installed.
    """

    def __init__(self, project: str | None = None, group: str | None = None, **options: Any):
        self._wandb = _import("wandb")
        self.project, self.group, self.options = project, group, options
        self._common: dict[str, str] = {}

    def on_begin(self, split: Split, contenders: Sequence[str], random_state: int) -> None:
        """Note the split, which all runs share."""
        self._common = _split_parameters(split, random_state)

    def on_result(self, result: Result) -> None:
        """Log a contender as a run of its name."""
        run = self._wandb.init(
            project=self.project,
            group=self.group or self._common.get("split"),
            name=result.name,
            config={**self._common, **_parameters(result)},
            **{"reinit": "create_new", **self.options},
        )
        try:
            run.summary.update(_numbers(result))
        finally:
            run.finish()


def _import(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise MissingExtra(
            f"This callback needs {name}: pip install {name}.", package=name
        ) from error


def _split_parameters(split: Split, random_state: int) -> dict[str, str]:
    return {
        "data": split.dataset.name,
        "split": split.name,
        "random_state": str(random_state),
        "classes": str(len(split.classes)),
        "train_images": str(len(split.train)),
        "test_images": str(len(split.test)),
    }


def _parameters(result: Result) -> dict[str, str]:
    facts = result.facts
    return {"backbone": facts.backbone, "weights": facts.weights, **facts.notes}


def _numbers(result: Result) -> dict[str, float]:
    costs = {name: float(value) for name, value in asdict(result.cost).items()}
    return {**result.metrics, **costs, "total_seconds": result.cost.total_seconds}
