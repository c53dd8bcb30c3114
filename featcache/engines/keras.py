"""Runner of a backbone with Keras, on any backend and device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np

from ..backbones.keras_backend import device_scope
from ..backbones.model import Backbone
from ..errors import InvalidRequest
from .backbone_runner import BackboneRunner

_ON_PROCESSOR = (32, 16)
_ON_ACCELERATOR = (128, 64, 256)
# Of the largest value: copies of one network on devices of the same kind. GPUs may round the
# factors of a convolution to 11 bits, and sum them in another order.
_TOLERANCE, _GPU_TOLERANCE = 1e-4, 1e-2


class KerasRunner(BackboneRunner):
    """Runs a `Backbone`.

    Parameters
    ----------
    backbone : Backbone
    device : str, optional
        Where its weights are, such as ``"gpu:1"``. Default: Keras' default device.
    """

    name = "keras"

    def __init__(self, backbone: Backbone, device: str | None = None) -> None:
        super().__init__(backbone)
        self._device = device
        self.candidates: tuple[int, ...] = (
            _ON_ACCELERATOR if backbone.on_accelerator else _ON_PROCESSOR
        )
        self.trial = self.most = max(self.candidates)
        # The second thread sends its batch while that of the first is computed. Keras' function for
        # JAX keeps the state of the model in between, so that two threads cannot share a model.
        self.parallel = 2 if backbone.on_accelerator and backbone.backend != "jax" else 1

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return batch_size

    def _place(self) -> AbstractContextManager[None]:
        return nullcontext() if self._device is None else device_scope(self._device)


def keras_runners(
    backbone: Backbone, devices: list[str], image_size: tuple[int, int]
) -> list[KerasRunner]:
    """Return a runner for each device, with a copy of the backbone; for none, of the default one.

    Raises
    ------
    InvalidRequest
        If the backbone cannot be copied.
    """
    if not devices:
        return [KerasRunner(backbone)]
    default = "gpu:0" if backbone.on_accelerator else "cpu:0"
    copies = [backbone if name == default else backbone.copied_to(name) for name in devices]
    runners = [KerasRunner(one, name) for one, name in zip(copies, devices, strict=True)]
    pixels = np.random.default_rng(0).integers(0, 256, (2, *image_size, 3), np.uint8)
    expected = KerasRunner(backbone).run(pixels, 2)
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=1e-30))
    allowed = largest * (_GPU_TOLERANCE if backbone.on_accelerator else _TOLERANCE)
    for runner, name in zip(runners, devices, strict=True):
        found = runner.run(pixels, 2)
        if not np.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True):
            raise InvalidRequest(
                f"The copy of {backbone.name} on {name} gives other rows than the model: a layer "
                "keeps something that is not among its settings. Leave devices= out.",
                received=name,
            )
    return runners
