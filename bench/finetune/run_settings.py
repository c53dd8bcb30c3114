"""The settings of a fine-tune that name the folder of its run."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from featcache.toolkit import BuiltBackbone, RowDtype, content_key
from heads.schedule import Schedule

from ..contenders.base import Training
from .input_plan import Views
from .network import Top
from .parts import describe_mode, describe_training

_VERSION = 3


@dataclass(frozen=True)
class RunSettings:
    """What determines the result of a run besides its backbone and its images.

    Attributes
    ----------
    top : Top
    initial_head : str or None
    views : Views
    layer_decay, label_smoothing : float
    schedule : Schedule
    validation_fraction : float
    class_weight : str or None
    boundary_dtype : {"float32", "float16"}
    """

    top: Top
    initial_head: str | None
    views: Views
    layer_decay: float
    label_smoothing: float
    schedule: Schedule
    validation_fraction: float
    class_weight: str | None
    boundary_dtype: RowDtype

    def folder_name(self, resolved: BuiltBackbone, first_free: int, training: Training) -> str:
        """Return the backbone's name and a hash of all that determines the result of a run."""
        dtype = self.boundary_dtype
        key = content_key(
            {
                **({} if dtype == "float32" else {"boundary": dtype}),  # as in earlier runs
                "version": _VERSION,
                "spec": resolved.spec.key,
                **describe_training(training),
                **describe_mode(resolved.keras_backbone.model),
                "unfreeze": first_free,
                "top": [*self.top.units, repr(float(self.top.dropout))],
                "initial_head": self.initial_head,
                "views": [view.key for view in self.views.listed()],
                "layer_decay": repr(float(self.layer_decay)),
                "label_smoothing": repr(float(self.label_smoothing)),
                "schedule": [repr(value) for value in astuple(self.schedule)],
                "validation": repr(float(self.validation_fraction)),
                "class_weight": self.class_weight,
            }
        )
        return f"{resolved.spec.backbone}-{key[:16]}"
