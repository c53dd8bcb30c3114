"""A dense network on stored embeddings, as the classification top of fine-tuned models."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from featcache import ClassifierStep, import_keras
from featcache.toolkit import preserve_random_state, quiet_log

from .base import Floats, Head, RandomState, integer_seed
from .calibration import choose_temperature
from .groups import Codes
from .held_out import held_out_part
from .parameters import Integers, Interval, check_parameters
from .scaling import StandardScaler
from .schedule import Progress, Schedule
from .weights import ClassWeight, RowWeights

Rows = NDArray[Any]

# A class needs as many rows, or groups of rows, for any to be held out.
_MIN_PER_CLASS = 2
_BATCHES_PER_EPOCH = 10
_MAX_RAISED_RATE = 1e-3

_PARAMETERS: dict[str, Integers | Interval] = {
    "units": Integers(0),
    "dropout": Interval(0, 1, closed_low=True),
    "epochs": Integers(1),
    "learning_rate": Interval(0),
    "batch_size": Integers(1),
    "patience": Integers(0),
    "lr_patience": Integers(0),
    "factor": Interval(0, 1),
    "validation_fraction": Interval(0, 1),
}


class _Data(NamedTuple):
    """Standardised rows, their class codes, and their weights in the loss and groups or None."""

    X: Floats
    codes: NDArray[np.int64]
    weights: Floats | None
    groups: Codes | None

    def weights_of(self, rows: Rows) -> Floats | None:
        return None if self.weights is None else self.weights[rows]


class DenseHead(Head):
    """Dense layer, dropout and softmax, trained with Adam on stored embeddings.

    The classification top of the usual fine-tuned model, trained without running the backbone
    again. Early stopping restores the best weights, and the learning rate is reduced on a
    plateau; both monitor the loss on rows held out of training. Trained by Keras with any of
    its backends; predicting needs NumPy alone.

    Parameters
    ----------
    units : int
        Width of the hidden layer; 0 for none.
    dropout : float
        Fraction of the hidden values that are dropped in training, 0 to 1.
    epochs : int
        Maximum number of epochs.
    learning_rate : float
        Initial learning rate of Adam. With fewer than ten batches per epoch it is raised in
        proportion, up to 0.001, since so few steps would leave the network underfitted.
    batch_size : int
        Rows per training step.
    patience : int
        Number of epochs without a lower held-out loss after which training stops.
    lr_patience : int
        Number of epochs without a lower held-out loss after which the learning rate is
        multiplied by `factor`.
    factor : float
        See `lr_patience`; between 0 and 1.
    validation_fraction : float
        Fraction of the training rows that are held out. If these are fewer than 50, the
        temperature is fitted by cross-validation.
    class_weight : {None, "balanced"} or dict
        Weight of each label; "balanced" gives all classes the same total weight.
    random_state : int, numpy.random.RandomState or None
        Seed of the initial weights, the held-out rows, the batches and the dropout.

    Attributes
    ----------
    hidden_, output_ : tuple of ndarray
        Kernel (inputs, outputs) and bias (outputs,) of each layer, float32; `hidden_` is None
        if `units` is 0.
    history_ : dict of str to list of float
        ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy``, ``learning_rate`` and
        cumulative ``seconds``, one value per epoch.

    Examples
    --------
    >>> DenseHead(units=0, epochs=5)
    DenseHead(epochs=5, units=0)
    """

    trains_in_seconds = False
    hidden_: tuple[Floats, Floats] | None
    output_: tuple[Floats, Floats]

    def __init__(
        self,
        units: int = 1024,
        dropout: float = 0.5,
        epochs: int = 78,
        learning_rate: float = 1e-4,
        batch_size: int = 64,
        patience: int = 10,
        lr_patience: int = 4,
        factor: float = 0.3,
        validation_fraction: float = 0.1,
        class_weight: ClassWeight = None,
        random_state: RandomState = 0,
    ) -> None:
        self.units = units
        self.dropout = dropout
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.patience = patience
        self.lr_patience = lr_patience
        self.factor = factor
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.random_state = random_state

    @property
    def n_parameters(self) -> int:
        """Number of weights: the values of all kernels and biases."""
        check_is_fitted(self, "output_")
        layers = [layer for layer in (self.hidden_, self.output_) if layer is not None]
        return int(sum(array.size for layer in layers for array in layer))

    def _fit_codes(
        self, X: Floats, codes: NDArray[np.int64], weights: RowWeights, groups: Codes | None
    ) -> None:
        check_parameters(self, _PARAMETERS)
        self._seed = integer_seed(self.random_state)
        self._scale = StandardScaler(X, weights=weights.sample)
        scaled = self._scale(X)
        train, held_out = self._parts(codes, groups)
        with preserve_random_state():
            network = self._network(X.shape[1])
        size = min(self.batch_size, len(train))
        data = _Data(scaled, codes, _mean_one(weights.loss), groups)
        with quiet_log():
            best, self.history_ = self._train(network, size, data, train, held_out)
            self._take(best)
            self.temperature_ = self._temperature(network, size, data, train, held_out)

    def _temperature(
        self, network: Any, size: int, data: _Data, train: Rows, held_out: Rows
    ) -> float:
        best = self.hidden_, self.output_

        def scores_of(train: Rows, scored: Rows) -> NDArray[Any]:
            # The same network and batch size, so that nothing is compiled again.
            weights, _ = self._train(network, size, data, train, train)
            self._take(weights)
            scores = self._forward(data.X[scored])
            self.hidden_, self.output_ = best
            return scores

        unseen = np.setdiff1d(held_out, train)
        return choose_temperature(
            data.codes, unseen, lambda rows: self._forward(data.X[rows]), scores_of, self._seed,
            weights=data.weights, groups=data.groups, min_prior=1,
        )  # fmt: skip

    def _parts(
        self, codes: NDArray[np.int64], groups: Codes | None = None
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        rows = np.arange(len(codes))
        held_out = held_out_part(
            codes, self.validation_fraction, self._seed, groups, min_per_class=_MIN_PER_CLASS
        )
        if not len(held_out):
            return rows, rows  # too few to hold any out: early stopping on the training loss
        return np.setdiff1d(rows, held_out), held_out

    def _network(self, width: int) -> Any:
        keras = import_keras()

        layers: list[Any] = [keras.Input((width,))]
        if self.units:
            layers += [
                keras.layers.Dense(self.units, activation="relu"),
                keras.layers.Dropout(self.dropout, seed=self._seed),
            ]
        layers.append(keras.layers.Dense(len(self.classes_)))
        network = keras.Sequential(layers)
        network.compile(
            optimizer=keras.optimizers.Adam(self.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=["accuracy"],
        )
        return network

    def _train(
        self, network: Any, size: int, data: _Data, train: Rows, held_out: Rows
    ) -> tuple[list[NDArray[Any]], dict[str, list[float]]]:
        """Train epoch by epoch; return the weights of the best one, and the history."""
        self._start(network)
        rate = self._rate(len(train))
        schedule = Schedule(
            self.epochs, self.batch_size, rate, self.patience, self.lr_patience, self.factor
        )
        progress, best = Progress(rate), network.get_weights()
        generator = np.random.default_rng(self._seed)
        while not progress.done:
            started = time.perf_counter()
            network.optimizer.learning_rate.assign(progress.learning_rate)
            # Keras returns loss and accuracy per batch; those of the epoch are their means.
            steps = [
                network.train_on_batch(data.X[rows], data.codes[rows], data.weights_of(rows))[:2]
                for rows in _batches(generator.permutation(train), size)
            ]
            loss, accuracy = np.mean(np.array(steps, np.float64), axis=0)
            validation = self._score(network, data, held_out)
            seconds = time.perf_counter() - started
            if progress.record(schedule, (loss, accuracy), validation, seconds):
                best = network.get_weights()
        return list(best), progress.history

    def _start(self, network: Any) -> None:
        """Initialise, or reset, the weights of a network and the state of its optimizer."""
        for number, layer in enumerate(network.layers):
            if layer.weights:
                kernel, bias = layer.weights
                kernel.assign(_initializer(self._seed * 10 + number)(kernel.shape))
                bias.assign(np.zeros(bias.shape, np.float32))
        network.optimizer.build(network.trainable_variables)
        for variable in network.optimizer.variables:
            variable.assign(np.zeros(variable.shape, dtype=variable.dtype))

    def _rate(self, rows: int) -> float:
        """Return the initial learning rate, raised if there are few batches per epoch."""
        batches = -(-rows // self.batch_size)
        raised = self.learning_rate * max(1.0, _BATCHES_PER_EPOCH / batches)
        return max(self.learning_rate, min(raised, _MAX_RAISED_RATE))

    def _score(self, network: Any, data: _Data, rows: Rows) -> tuple[float, float]:
        """Return the loss and accuracy of the network on some rows."""
        self._take(network.get_weights())
        scores, codes, weights = (
            self._forward(data.X[rows]),
            data.codes[rows],
            data.weights_of(rows),
        )
        shifted = scores - scores.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        loss = np.average(-logs[np.arange(len(codes)), codes], weights=weights)
        return float(loss), float(np.average(scores.argmax(axis=1) == codes, weights=weights))

    def _take(self, weights: list[NDArray[Any]]) -> None:
        """Set `hidden_` and `output_` from the weights of a network."""
        arrays = [np.asarray(w, np.float32) for w in weights]
        self.hidden_ = (arrays[0], arrays[1]) if self.units else None
        self.output_ = (arrays[-2], arrays[-1])

    def _forward(self, scaled: Floats) -> NDArray[Any]:
        inner = scaled
        if self.hidden_ is not None:
            inner = np.maximum(scaled @ self.hidden_[0] + self.hidden_[1], 0)
        return np.asarray(inner @ self.output_[0] + self.output_[1])

    def _scores(self, X: Floats) -> NDArray[Any]:
        return self._forward(self._scale(X))

    def _widest(self) -> int:
        return max(super()._widest(), self.units)

    def _steps(self) -> list[ClassifierStep]:
        def linear(layer: tuple[NDArray[Any], NDArray[Any]]) -> ClassifierStep:
            return ClassifierStep("linear", {"weights": layer[0], "bias": layer[1]})

        scale = {"mean": self._scale.mean, "scale": self._scale.scale}
        inner = [] if self.hidden_ is None else [linear(self.hidden_), ClassifierStep("relu")]
        return [ClassifierStep("standardise", scale), *inner, linear(self.output_)]


def _mean_one(weights: Floats | None) -> Floats | None:
    """Return weights divided by their mean: Adam's steps do not depend on the scale of the loss."""
    return None if weights is None else np.asarray(weights / weights.mean(), np.float32)


def _initializer(seed: int) -> Any:
    return import_keras().initializers.GlorotUniform(seed=seed)


def _batches(rows: NDArray[Any], size: int) -> list[NDArray[Any]]:
    """Divide rows into batches of equal size; the last one is filled up with the first rows.

    Each other batch shape would be compiled again.
    """
    count = -(-len(rows) // size)
    return list(np.resize(rows, count * size).reshape(count, size))
