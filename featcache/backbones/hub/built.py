"""Backbones of keras-hub that the user built or loaded, without importing keras-hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InvalidRequest
from ..installed import top_package
from ..keras_types import KerasModel
from .converter import Converter
from .families import FAMILIES, Family
from .preset import is_preset

_BASE = ("keras_hub.src.models.backbone", "Backbone")


@dataclass(frozen=True)
class HubModel:
    """A built backbone of one of the known classes, in memory.

    Attributes
    ----------
    model : keras_hub.models.Backbone
    """

    model: KerasModel
    converter: Converter | None = None
    any_size: bool = False

    @property
    def name(self) -> str:
        """The model's own name, which need not be unique."""
        return str(self.model.name)

    @property
    def argument(self) -> str:
        """The model's own name."""
        return self.name

    @property
    def family(self) -> Family:
        """What the outputs are."""
        return FAMILIES[type(self.model).__name__]

    @property
    def tower(self) -> dict[str, Any]:
        """The settings of the image tower."""
        tower: Any = getattr(self.model, "vision_encoder", self.model)
        return dict(tower.get_config())


def is_hub_model(backbone: Any) -> bool:
    """Return whether an object is a backbone of a class of keras-hub's own."""
    kind = type(backbone)
    bases = {(base.__module__, base.__name__) for base in kind.__mro__}
    return _BASE in bases and top_package(kind) == "keras_hub"


def is_hub_backbone(backbone: Any) -> bool:
    """Return whether the argument `backbone` is a preset or a backbone of keras-hub."""
    return is_preset(backbone) or is_hub_model(backbone)


def as_hub_model(backbone: Any) -> HubModel:
    """Return a backbone of keras-hub; raise `InvalidRequest` for classes that are not known."""
    kind = type(backbone).__name__
    if kind not in FAMILIES:
        titles = sorted({family.title for family in FAMILIES.values()})
        raise InvalidRequest(
            f"The {kind} of keras-hub is not an image backbone known here ({', '.join(titles)}); "
            "pass keras.Model(backbone.inputs, backbone.outputs) if it takes images only.",
            received=kind,
        )
    tower = getattr(backbone, "vision_encoder", backbone)
    if tower is not backbone and (
        not is_hub_model(tower) or type(tower).__name__ != kind.replace("Backbone", "VisionEncoder")
    ):
        raise InvalidRequest(
            f"The vision_encoder of the {kind} is a {type(tower).__name__}, not keras-hub's own; "
            "pass keras.Model(images, features) of its layers.",
            received=type(tower).__name__,
        )
    return HubModel(backbone)
