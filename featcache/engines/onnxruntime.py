"""Runner of an ONNX network with ONNX Runtime, on the processor."""

from __future__ import annotations

from .backbone_runner import BackboneRunner


class OnnxRuntimeRunner(BackboneRunner):
    """Runs an `OnnxBackbone`."""

    name = "onnxruntime"
    candidates: tuple[int, ...] = (8, 4, 16)
    trial = 16
    most = 32

    def size_within(self, batch_size: int) -> int:
        """Return the micro-batch size for a batch size chosen by the user."""
        return min(batch_size, max(self.candidates))
