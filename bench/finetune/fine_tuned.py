"""`FineTuned`: a contender that trains the last part of a backbone, with augmentation."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import Augmentation
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    BackboneLike,
    BuiltBackbone,
    RowDtype,
    cache_folder,
    get_logger,
    preserve_random_state,
    training_folder,
)
from heads.schedule import RateSchedule, Schedule

from ..contenders.base import Contender, ContenderInfo, Training
from ..contenders.describe import describe_network
from ..contenders.frozen_backbone import FrozenBackbone
from ..contenders.measure import Estimate, Work
from ..presets import PRESETS, REFERENCE_SETTINGS, find_preset
from ..splits import Images
from .boundary import find_boundary
from .calibration import FOLD_PREFIX, calibrate, divide_scores
from .checks import check_boundary_dtype, check_options, check_training
from .cost import run_cost
from .initial_head import InitialHead, TrainedHead, check_initial_head, train_initial_head
from .input_plan import MAX_CACHE, InputPlan, Views, view_count
from .inputs import Inputs, Reader
from .network import Network, Top, build_network, first_free_layer, weight_counts
from .optimizer import compile_for_training
from .own_model import check_trainable, copy_own_model
from .parts import class_weights, training_parts
from .run_settings import RunSettings
from .saved_model import save_model
from .training import Run, plain, predict, training_estimate

log = get_logger(__name__)

_MODEL_FILE = "model.keras"


class FineTuned(Contender):
    """Contender: a backbone with a new classification top, whose last part is trained.

    The outputs of the last frozen layer, the boundary, are stored like features and read in
    training, unless they are too large: then it is trained on decoded pixels, with the same result.
    An interrupted run resumes after its last epoch, and a finished one is read. The probabilities
    are calibrated by a temperature in the last layer, fitted on the validation images or, if these
    are fewer than 50, by cross-validation, which takes up to twice the training time in addition.

    Parameters
    ----------
    backbone : str or keras.Model
        As for `featcache.extract`.
    unfreeze : float, int or str
        What to train: the last fraction of the backbone's weights (0.0 to 1.0), its last N
        layers, or all layers from the one of that name on.
    units : sequence of int
        Widths of the dense layers between backbone and classes.
    dropout : float
        Fraction of values dropped after each of them.
    initial_head : {"logistic", None}
        What the last layer starts from: ``"logistic"``, a logistic regression on the frozen
        features, so that training begins at its accuracy (Kumar et al. 2022, arXiv:2202.10054);
        None, random weights. Default: ``"logistic"``, if `units` is empty.
    augmentation : Augmentation or "flip", optional
        Default: ``Augmentation()``; `NO_AUGMENTATION` for none.
    views : int, optional
        Number of views of each training image, the image itself included: epoch `e` trains on
        view ``e % views``. Default: 4; with ``"flip"`` 2, with `NO_AUGMENTATION` 1.
    epochs : int
        Maximum number of epochs.
    batch_size : int
        Images per training step.
    learning_rate : float
        Initial learning rate of Adam.
    patience : int
        Number of epochs without a lower validation loss after which training stops; the
        weights of the best epoch are kept.
    lr_patience : int
        Number of epochs without a lower validation loss after which the learning rate is
        multiplied by `factor`.
    factor : float
        Between 0 and 1.
    lr_schedule : {"plateau", "cosine"}
        ``"cosine"``: the learning rate falls to 0 along half a cosine; `lr_patience` and
        `factor` do nothing.
    warmup : float
        Number of epochs in which the learning rate rises from 0.
    layer_decay : float
        Factor from 0 to 1 from the learning rate of a layer to that of the layer before it;
        1: all have the same.
    label_smoothing : float
        Fraction of the target that is spread over all classes, 0 up to but excluding 1.
    validation_fraction : float
        Fraction of the training images that are held out for validation, stratified by class,
        with copies of a photo together.
    class_weight : {None, "balanced"}
        "balanced" gives all classes the same total weight.
    boundary : str, optional
        The frozen layer whose outputs are stored. Default: the smallest output among the last
        ones before the trained layers.
    boundary_dtype : {"float32", "float16"}
        Number format in which they are stored. ``"float16"`` halves the disk space: values are
        rounded, except in the saved model; images with a value beyond 65504 are unusable.
    max_cache : int
        Bytes that the outputs of the boundary may take; 0: train on pixels. Default: 20 GiB.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    **options
        ``weights``, ``image_size``, ``resize``, ``layer`` and ``pooling``, as for
        `featcache.extract`.

    Raises
    ------
    InvalidRequest
        If an argument is not accepted.
    """

    quick = False
    _inputs: Inputs | None = None

    def __init__(
        self,
        backbone: BackboneLike,
        unfreeze: float | int | str = 0.4,
        *,
        units: Sequence[int] = (),
        dropout: float = 0.5,
        initial_head: InitialHead | Literal["auto"] | None = "auto",
        augmentation: Augmentation | Literal["flip"] | None = None,
        views: int | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 1e-4,
        patience: int = 8,
        lr_patience: int = 3,
        factor: float = 0.3,
        lr_schedule: RateSchedule = "plateau",
        warmup: float = 0.0,
        layer_decay: float = 1.0,
        label_smoothing: float = 0.0,
        validation_fraction: float = 0.1,
        class_weight: Literal["balanced"] | None = None,
        boundary: str | None = None,
        boundary_dtype: RowDtype = "float32",
        max_cache: int = MAX_CACHE,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        check_trainable(backbone)
        check_options(unfreeze, class_weight, lr_schedule, layer_decay, label_smoothing)
        check_boundary_dtype(boundary_dtype, options)
        self.backbone, self.unfreeze = backbone, unfreeze
        self.top = Top(tuple(units), dropout)
        self.initial_head = check_initial_head(initial_head, self.top.units)
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.views = Views(view_count(views, self.augmentation), self.augmentation)
        self.schedule = Schedule(
            epochs, batch_size, learning_rate, patience, lr_patience, factor, lr_schedule, warmup
        )
        check_training(self.schedule, self.top, validation_fraction, max_cache)
        self.label_smoothing, self.validation_fraction = label_smoothing, validation_fraction
        self.layer_decay, self.class_weight, self._options = layer_decay, class_weight, options
        self.boundary, self.max_cache = boundary, max_cache
        self.boundary_dtype: RowDtype = boundary_dtype
        self._cache_dir = cache_dir

    @classmethod
    def preset(cls, name: str, **changes: Any) -> FineTuned:
        """Return a contender with the settings of a reference run.

        Parameters
        ----------
        name : str
            A key of `PRESETS`.
        **changes
            Parameters that replace those of the preset.

        Raises
        ------
        InvalidRequest
            If there is no preset of that name.
        """
        return cls(**{**REFERENCE_SETTINGS, **find_preset(name, PRESETS), **changes})

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Check weights and layers; compute the boundary's outputs, or decode all images."""
        self._plan = self._input_plan()
        # Checks weights and layers before other contenders are trained for hours.
        self._boundary = self._plan.find_boundary(self._load(), len(images))
        self._inputs = self._plan.make_inputs(self._boundary, images, progress)
        return dict(self._inputs.unusable)

    def _input_plan(self) -> InputPlan:
        return InputPlan(
            self.backbone, self._extract_options(), self.unfreeze, self.boundary,
            self.boundary_dtype, self.max_cache, self.views, self.schedule.batch_size,
        )  # fmt: skip

    def _extract_options(self) -> dict[str, Any]:
        return {**self._options, "cache_dir": self._cache_dir}

    def train(self, training: Training) -> None:
        """Train, or resume an earlier run; the weights are those of the best epoch."""
        inputs = self._prepared()  # raises unless prepare() was called
        inputs.prepare_views(training.images, training.progress)
        network, self._resolved, self._head = self._build(training)
        self.model, self._trained = network.full, network.trained
        self._first_free = network.first_free
        self.folder = self._run_folder(training)
        self._run = Run(self._trained, self.folder, self.schedule, training.random_state)
        if self._run.resumed_at:
            log.info("%s: resumed after epoch %d", self.folder.name, self._run.resumed_at)
        unseen = self._train_run(self._run, training)
        self.temperature_, self._fold_seconds = self._calibration(training, unseen)
        divide_scores(self.model, self.temperature_)
        trained_now = self._run.resumed_at < self._run.progress.epoch
        save_model(self.model, self.model_file, trained_now=trained_now)

    def _train_run(self, run: Run, training: Training) -> NDArray[np.int64]:
        """Train a run on some of its images; return those of the others that it never saw."""
        train, validation = training_parts(training, self.validation_fraction)
        weights = class_weights(training.codes, training.n_classes) if self.class_weight else None
        read = self._reader(training.images)
        run.train(read, training.codes, train, validation, weights, training.progress)
        return np.setdiff1d(validation, train)

    def works(self, images: Images, n_train: int, n_classes: int) -> list[Work]:
        """Return the extraction or decoding of what is read, and training for all epochs."""
        plan, resolved = self._input_plan(), self._load()
        self._boundary = plan.find_boundary(resolved, len(images))
        works = plan.works(self._boundary, images, n_train, resolved)
        if self.initial_head:
            frozen = FrozenBackbone(self.backbone, **self._extract_options())
            works += frozen.works(images.take(range(n_train)), n_train)
        training = Training(images.take(range(n_train)), np.zeros(0, np.int64), n_classes)
        what = f"{resolved.request.name} from {self.unfreeze}"

        def measure() -> Estimate:
            return training_estimate(self._build(training, False)[0], self.schedule, n_train, what)

        return [*works, Work("", n_train, measure)]

    def count_trained(self, trainings: Sequence[Training]) -> int:
        """Return how many of some trainings earlier runs have finished."""
        if not any(training_folder(cache_folder(self._cache_dir)).glob(f"*/{_MODEL_FILE}")):
            return 0
        self._resolved = self._load()
        counts = weight_counts(self._resolved.backbone.model)
        self._first_free = first_free_layer(counts, self.unfreeze)
        return sum((self._run_folder(one) / _MODEL_FILE).is_file() for one in trainings)

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Return the trained model's probabilities, without augmentation."""
        rows = np.arange(len(images))
        return predict(self._trained, plain(self._reader(images)), rows, self.schedule.batch_size)

    def facts(self) -> ContenderInfo:
        """Describe the trained network and the cost of training."""
        history = self._run.progress.history
        seconds = history["seconds"][-1] + self._fold_seconds
        cost = run_cost(self._prepared(), self._head, self.folder, seconds)
        about = self._resolved.request.metadata()
        trainable = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)
        layers = weight_counts(self._resolved.backbone.model)
        start = layers[self._first_free][0] if self._first_free < len(layers) else "none"
        return ContenderInfo(
            extract_seconds=cost.extract_seconds,
            computed_now=cost.computed_now,
            backbone=about["backbone"],
            weights=about["weights"],
            weights_kind=self._resolved.request.weights.kind,
            trainable_parameters=trainable,
            total_parameters=int(self.model.count_params()),
            disk_bytes=cost.disk_bytes,
            fit_seconds=cost.fit_seconds,
            history=history,
            notes={
                "free from layer": start,
                "stored outputs of": "none" if self._boundary is None else self._boundary.layer,
                "views": str(self.views.count),
                "initial head": str(self.initial_head),
                "epochs": str(len(history["loss"])),
                "augmentation": "none" if self.views.count == 1 else str(self.augmentation),
                "schedule": str(self.schedule),
                "temperature": f"{self.temperature_:.4f}",
                "model": str(self.model_file),
                "key": self._resolved.spec.key,
            },
        )

    def network(self) -> dict[str, Any] | None:
        """Describe the backbone and where its trained part begins."""
        body = self._resolved.backbone.model
        name = f"{self._resolved.request.name} fine-tuned"
        return describe_network(name, body, self._first_free)

    @property
    def model_file(self) -> Path:
        """Path of the trained model, for ``keras.saving.load_model(..., safe_mode=True)``."""
        return self.folder / _MODEL_FILE

    def _calibration(self, training: Training, unseen: NDArray[np.int64]) -> tuple[float, float]:
        """Return the temperature, and the seconds that fitting it took."""

        def proba_of(model: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
            read = self._reader(training.images.take(rows))
            return predict(model, plain(read), np.arange(len(rows)), self.schedule.batch_size)

        return calibrate(
            self.folder, self._trained, training.codes, unseen, proba_of,
            lambda rows: self._fold(training, rows), training.random_state,
        )  # fmt: skip

    def _fold(self, training: Training, rows: NDArray[np.int64]) -> Any:
        """Return a model trained like the contender, on some of its images."""
        part = training.take(rows)
        model = self._build(part)[0].trained
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        folder = self.folder / f"{FOLD_PREFIX}{name}"
        run = Run(model, folder, self.schedule, training.random_state)
        self._train_run(run, part)
        return model

    def _reader(self, images: Images) -> Reader:
        return self._prepared().reader(images.ids, self.views.count)

    def _load(self) -> BuiltBackbone:
        return featcache.load_backbone(self.backbone, cache_dir=self._cache_dir, **self._options)

    def _build(
        self, training: Training, head: bool = True
    ) -> tuple[Network, BuiltBackbone, TrainedHead | None]:
        """Return the compiled network, its backbone, and the head that it starts from."""
        copy_own_model(resolved := self._load())
        body = resolved.backbone.model
        first = first_free_layer(weight_counts(body), self.unfreeze)
        stored = self._boundary and find_boundary(body, first, self._boundary.layer)
        with preserve_random_state():
            network = build_network(
                resolved.keras_backbone, training.n_classes, self.unfreeze, self.top,
                training.random_state, stored,
            )  # fmt: skip
        start = None
        if head and self.initial_head:
            # Not on the validation images: their loss would say nothing of the first epochs.
            part = training.take(training_parts(training, self.validation_fraction)[0])
            start = train_initial_head(
                self.backbone, self._extract_options(), part, self.class_weight
            )
        if start is not None:
            network.full.layers[-1].set_weights([start.kernel, start.bias])
        compile_for_training(
            network.trained, body, training.n_classes, self.schedule.learning_rate,
            self.layer_decay, self.label_smoothing,
        )  # fmt: skip
        return network, resolved, start

    def _prepared(self) -> Inputs:
        if self._inputs is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        return self._inputs

    def _run_folder(self, training: Training) -> Path:
        """Return the folder of the run, named by a hash of all that determines its result."""
        settings = RunSettings(
            self.top, self.initial_head, self.views, self.layer_decay, self.label_smoothing,
            self.schedule, self.validation_fraction, self.class_weight, self.boundary_dtype,
        )  # fmt: skip
        runs = training_folder(cache_folder(self._cache_dir))
        return runs / settings.folder_name(self._resolved, self._first_free, training)
