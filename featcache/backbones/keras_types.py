"""What is asked of the objects of Keras, which is not imported until a model is built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol


class KerasModel(Protocol):
    """A built `keras.Model`, as far as it is used before it is known to be one.

    Its tensors, layers and variables belong to Keras and its backend.
    """

    @property
    def name(self) -> Any:
        """The model's own name."""
        ...

    @property
    def layers(self) -> Sequence[Any]:
        """The layers, in the order of the network."""
        ...

    @property
    def inputs(self) -> Any:
        """Symbolic inputs."""
        ...

    @property
    def outputs(self) -> Any:
        """Symbolic outputs."""
        ...

    @property
    def weights(self) -> Sequence[Any]:
        """All variables."""
        ...

    @property
    def input_shape(self) -> Any:
        """Shape of the input; the batch and open sizes are None."""
        ...

    @property
    def predict_on_batch(self) -> Any:
        """Compute the outputs of one batch."""
        ...

    @property
    def count_params(self) -> Any:
        """Return the number of values in all weights."""
        ...


# What stands for a backbone: a name of the table, the file of a network, or a model.
BackboneLike = str | os.PathLike[str] | KerasModel
