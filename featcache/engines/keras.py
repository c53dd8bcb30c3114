"""Runner of a backbone with Keras, on any backend and device."""

from __future__ import annotations

from ..backbones.model import Backbone
from .backbone_runner import BackboneRunner

_ON_PROCESSOR = (32, 16)
_ON_ACCELERATOR = (128, 64, 256)


class KerasRunner(BackboneRunner):
    """Runs a `Backbone`."""

    name = "keras"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.candidates: tuple[int, ...] = (
            _ON_ACCELERATOR if backbone.on_accelerator else _ON_PROCESSOR
        )
        self.trial = self.most = max(self.candidates)

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return batch_size
