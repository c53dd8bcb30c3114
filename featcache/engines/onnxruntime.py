"""Runner of an ONNX network with ONNX Runtime, on the processor."""

from __future__ import annotations

from contextlib import AbstractContextManager

from ..backbones.onnx.backbone import OnnxBackbone
from .backbone_runner import BackboneRunner
from .devices import pinned_to


class OnnxRuntimeRunner(BackboneRunner):
    """Runs an `OnnxBackbone`.

    Parameters
    ----------
    backbone : OnnxBackbone
    core : int, optional
        Run on this core alone, by the thread that calls. Default: on all.
    """

    name = "onnxruntime"
    candidates: tuple[int, ...] = (8, 4, 16)
    trial = 16
    most = 32

    def __init__(self, backbone: OnnxBackbone, core: int | None = None) -> None:
        super().__init__(backbone if core is None else backbone.on_one_thread())
        self._core = core

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return min(batch_size, max(self.candidates))

    def _place(self) -> AbstractContextManager[None]:
        return pinned_to(self._core)
