"""`FineTuned`: a contender that trains the last part of a backbone, with augmentation."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import import_keras
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    BackboneLike,
    BackboneOptions,
    BuiltBackbone,
    ModelRequest,
    cache_folder,
    check_choice,
    content_key,
    format_count,
    get_logger,
    make_request,
    open_atomic,
    stratified_group_split,
    temporary_path,
    training_folder,
    unmoved_random,
    write_all,
)
from heads.schedule import Schedule

from ..contenders.base import Contender, ContenderInfo, Training
from ..contenders.describe import describe_network
from ..contenders.measure import Estimate, seconds_of, seconds_to_decode
from ..presets import PRESETS, find_preset
from ..splits import Images
from .calibration import FOLD_PREFIX, calibrate, divide_scores
from .network import Augmentation, build_network, first_free_layer, weight_counts
from .pixels import Pixels, decoded
from .training import Run, predict

log = get_logger(__name__)

_VERSION = 2
_BLOCK_BYTES = 1 << 20
_REFERENCE = Augmentation(True, True, 0, 0.2, 0.3, 0, 0, 0)


class FineTuned(Contender):
    """Contender: a backbone with a new classification top, whose last part is trained.

    It is trained on images decoded as in an extraction, with a checkpoint after each epoch: an
    interrupted run resumes, and a finished one is read. The probabilities are calibrated by a
    temperature that is part of the last layer. It is fitted on the validation images or, if
    these are fewer than 50, by cross-validation, which takes up to twice the training time in
    addition.

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
    augmentation : Augmentation, optional
        Default: ``Augmentation()``; `NO_AUGMENTATION` for none.
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
    validation_fraction : float
        Fraction of the training images that are held out for validation, stratified by class,
        with copies of a photo together.
    class_weight : {None, "balanced"}
        "balanced" gives all classes the same total weight.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    **options
        ``weights``, ``image_size``, ``resize``, ``layer`` and ``pooling``, as for
        `featcache.extract`.

    Raises
    ------
    InvalidRequest
        If `unfreeze` or `class_weight` is not accepted.
    """

    quick = False

    def __init__(
        self,
        backbone: BackboneLike,
        unfreeze: float | int | str = 0.4,
        *,
        units: Sequence[int] = (1024,),
        dropout: float = 0.5,
        augmentation: Augmentation | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 1e-4,
        patience: int = 8,
        lr_patience: int = 3,
        factor: float = 0.3,
        validation_fraction: float = 0.1,
        class_weight: Literal["balanced"] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        if class_weight is not None:
            check_choice("class_weight", class_weight, ("balanced",), ", or leave it out")
        first_free_layer([("", 1)], unfreeze if not isinstance(unfreeze, str) else 0)
        self.backbone, self.unfreeze = backbone, unfreeze
        self.units, self.dropout = tuple(units), dropout
        self.augmentation = Augmentation() if augmentation is None else augmentation
        self.schedule = Schedule(epochs, batch_size, learning_rate, patience, lr_patience, factor)
        self.validation_fraction, self.class_weight = validation_fraction, class_weight
        self._cache_dir, self._options = cache_dir, options
        self._pixels: Pixels | None = None

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
        return cls(**{"augmentation": _REFERENCE, **find_preset(name, PRESETS), **changes})

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Check weights and layer, and decode all images to the backbone's size."""
        request = make_request(self.backbone, BackboneOptions(**self._options))
        # Checked here, before other contenders are trained for hours.
        first_free_layer(weight_counts(self._load().backbone.model), self.unfreeze)
        self._pixels = decoded(
            images, request.image_size, request.resize, cache_dir=self._cache_dir, progress=progress
        )
        return dict(self._pixels.unusable)

    def train(self, training: Training) -> None:
        """Train, or resume an earlier run; the weights are those of the best epoch."""
        self._decoded()  # raises unless prepare() was called
        seed = training.random_state
        self.model, self._resolved, self._first_free = self._build(training.n_classes, seed)
        self.folder = self._run_folder(training)
        self._run = Run(self.model, self.folder, self.schedule, seed)
        if self._run.resumed_at:
            log.info("%s: resumed after epoch %d", self.folder.name, self._run.resumed_at)
        unseen = self._train_run(self._run, training)
        self.temperature_, self._fold_seconds = self._calibration(training, unseen)
        divide_scores(self.model, self.temperature_)
        self._save_model()

    def _train_run(self, run: Run, training: Training) -> NDArray[np.int64]:
        """Train a run on some of its images; return those of the others that it never saw."""
        images, codes = training.images, training.codes
        fraction = self.validation_fraction
        train, validation = _parts(images, codes, fraction, training.random_state)
        balanced = self.class_weight == "balanced"
        weights = _balanced(codes, training.n_classes) if balanced else None
        run.train(self._reader(images), codes, train, validation, weights, training.progress)
        return np.setdiff1d(validation, train)

    def estimate(self, images: Images, n_train: int, n_classes: int) -> Estimate:
        """Estimate decoding and training for all epochs, from a measured training step."""
        model, resolved, _ = self._build(n_classes, 0)
        height, width = resolved.spec.image_size
        size = self.schedule.batch_size
        pixels, codes = np.zeros((size, height, width, 3), np.float32), np.zeros(size, np.int64)
        step = seconds_of(lambda: model.train_on_batch(pixels, codes), times=1)
        steps = self.schedule.epochs * -(-n_train // size)
        decode = seconds_to_decode(images, (height, width), resolved.request.resize)
        trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        # A checkpoint holds the trained weights, the best ones and Adam's two moments.
        room = len(images) * height * width * 3 + 16 * trained + 4 * int(model.count_params())
        epochs = format_count(self.schedule.epochs, "epoch")
        what = f"{epochs} of {self.backbone} from {self.unfreeze}"
        return Estimate(what, steps * step + decode * len(images), room, at_most=True)

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Return the trained model's probabilities, without augmentation."""
        rows = np.arange(len(images))
        return predict(self.model, self._reader(images), rows, self.schedule.batch_size)

    def facts(self) -> ContenderInfo:
        """Describe the trained network and the cost of training."""
        history = self._run.progress.history
        about = self._resolved.request.metadata()
        model = self.model
        trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        layers = weight_counts(self._resolved.backbone.model)
        start = layers[self._first_free][0] if self._first_free < len(layers) else "none"
        return ContenderInfo(
            extract_seconds=self._decoded().seconds,
            backbone=about["backbone"],
            weights=about["weights"],
            weights_kind=self._resolved.request.weights.kind,
            trainable_parameters=trainable,
            total_parameters=int(model.count_params()),
            disk_bytes=sum(f.stat().st_size for f in self.folder.iterdir() if f.is_file())
            + int(self._decoded().array.nbytes),
            fit_seconds=history["seconds"][-1] + self._fold_seconds,
            history=history,
            notes={
                "free from layer": start,
                "epochs": str(len(history["loss"])),
                "augmentation": str(self.augmentation),
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
        return self.folder / "model.keras"

    def _calibration(self, training: Training, unseen: NDArray[np.int64]) -> tuple[float, float]:
        """Return the temperature, and the seconds that fitting it took."""

        def proba_of(model: Any, rows: NDArray[np.int64]) -> NDArray[np.float64]:
            read = self._reader(training.images.take(rows))
            return predict(model, read, np.arange(len(rows)), self.schedule.batch_size)

        return calibrate(
            self.folder, self.model, training.codes, unseen, proba_of,
            lambda rows: self._fold(training, rows), training.random_state,
        )  # fmt: skip

    def _fold(self, training: Training, rows: NDArray[np.int64]) -> Any:
        """Return a model trained like the contender, on some of its images."""
        model, _, _ = self._build(training.n_classes, training.random_state)
        name = hashlib.sha256(rows.tobytes()).hexdigest()[:16]
        folder = self.folder / f"{FOLD_PREFIX}{name}"
        run = Run(model, folder, self.schedule, training.random_state)
        part = replace(training, images=training.images.take(rows), codes=training.codes[rows])
        self._train_run(run, part)
        return model

    def _reader(self, images: Images) -> Callable[[NDArray[Any]], NDArray[Any]]:
        """Return a function that reads the pixels, float32, of positions among the images."""
        pixels, ids = self._decoded(), images.ids

        def read(rows: NDArray[Any]) -> NDArray[Any]:
            return pixels.take([ids[i] for i in rows]).astype(np.float32)

        return read

    def _load(self) -> BuiltBackbone:
        return featcache.load_backbone(self.backbone, cache_dir=self._cache_dir, **self._options)

    def _build(self, n_classes: int, random_state: int) -> tuple[Any, BuiltBackbone, int]:
        """Return the compiled network, its backbone, and the index of the first trained layer."""
        keras = import_keras()
        resolved = self._load()
        if isinstance(resolved.request, ModelRequest):
            # A copy, since the caller's model must not change.
            own = resolved.backbone.model
            with unmoved_random():
                resolved.backbone.model = keras.models.clone_model(own)
            resolved.backbone.model.set_weights(own.get_weights())
        with unmoved_random():
            model = build_network(
                resolved.backbone, n_classes, self.unfreeze, self.units, self.dropout,
                self.augmentation, random_state,
            )  # fmt: skip
        model.compile(
            optimizer=keras.optimizers.Adam(self.schedule.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(),
            weighted_metrics=["accuracy"],
        )
        first = first_free_layer(weight_counts(resolved.backbone.model), self.unfreeze)
        return model, resolved, first

    def _decoded(self) -> Pixels:
        if self._pixels is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        return self._pixels

    def _save_model(self) -> None:
        if self.model_file.exists():
            return
        # In a folder, since Keras requires the file extension.
        temporary = temporary_path(self.folder)
        temporary.mkdir()
        try:
            saved = temporary / self.model_file.name
            self.model.save(saved)
            with (
                open(saved, "rb") as source,
                # Durable, since an existing file is never written again.
                open_atomic(self.model_file, description="a fine-tuned model") as target,
            ):
                while block := source.read(_BLOCK_BYTES):
                    write_all(target, block)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _run_folder(self, training: Training) -> Path:
        """Return the folder of the run, named by a hash of all that determines its result."""
        images, codes = training.images, training.codes
        order = np.argsort(np.array(images.ids))
        examples = "".join(f"{images.ids[i]}{codes[i]}," for i in order)
        key = content_key(
            {
                "version": _VERSION,
                "spec": self._resolved.spec.key,
                "examples": hashlib.sha256(examples.encode()).hexdigest(),
                "order": hashlib.sha256("".join(images.ids).encode()).hexdigest(),
                "classes": training.n_classes,
                "seed": training.random_state,
                "unfreeze": self._first_free,
                "top": [*self.units, repr(float(self.dropout))],
                "augmentation": [repr(value) for value in astuple(self.augmentation)],
                "schedule": [repr(value) for value in astuple(self.schedule)],
                "validation": repr(float(self.validation_fraction)),
                "class_weight": self.class_weight,
            }
        )
        name = f"{self._resolved.spec.backbone}-{key[:16]}"
        return training_folder(cache_folder(self._cache_dir)) / name


def _parts(
    images: Images, codes: NDArray[np.int64], size: float, random_state: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return training and validation rows, with copies of a photo in the same part."""
    try:
        return stratified_group_split(images.photos, codes.tolist(), size, random_state)
    except InvalidRequest:
        rows = np.arange(len(codes))  # too few to hold any out: early stopping on training images
        return rows, rows


def _balanced(codes: NDArray[np.int64], n_classes: int) -> NDArray[np.float32]:
    counts = np.bincount(codes, minlength=n_classes)
    present = np.maximum(counts, 1)
    weights = len(codes) / (np.count_nonzero(counts) * present)
    return np.asarray(weights, np.float32)
