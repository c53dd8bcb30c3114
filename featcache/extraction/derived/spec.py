"""The spec of features that are derived from stored rows of one or several backbones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from ...backbones.spec import BackboneSpec, content_key
from ...errors import InvalidRequest
from .steps import RowStep, width_after

MAX_PARTS = 64
MAX_STEPS = 64


@dataclass(frozen=True)
class DerivedSpec:
    """What determines derived features: the backbones side by side, and the steps after them.

    It has the attributes of a `BackboneSpec` that callers use, of all parts together.

    Attributes
    ----------
    parts : tuple of BackboneSpec
        In the order of their columns.
    widths : tuple of int
        Number of values of each part, as it is stored.
    steps : tuple of RowStep
        Applied in their order to the rows of all parts side by side.

    Raises
    ------
    InvalidRequest
        If there is no part, more than 64, another number of widths, more than 64 steps, or a step
        takes columns that do not exist.
    """

    parts: tuple[BackboneSpec, ...]
    widths: tuple[int, ...]
    steps: tuple[RowStep, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.parts) <= MAX_PARTS or len(self.parts) != len(self.widths):
            raise InvalidRequest(
                f"Derived features have 1 to {MAX_PARTS} parts with a width each, not "
                f"{len(self.parts)} parts and {len(self.widths)} widths.",
                received=len(self.parts),
            )
        if len(self.steps) > MAX_STEPS:
            raise InvalidRequest(
                f"Features have at most {MAX_STEPS} steps, not {len(self.steps)}.",
                received=len(self.steps),
            )
        width_after(self.steps, sum(self.widths))

    @classmethod
    def of(cls, spec: FeatureSpec, width: int) -> DerivedSpec:
        """Return the derived spec of features of `width` values; of stored rows, with one part."""
        return spec if isinstance(spec, DerivedSpec) else cls((spec,), (width,))

    @classmethod
    def joined(cls, specs: Sequence[DerivedSpec]) -> DerivedSpec:
        """Return the spec of features side by side, each after its own steps."""
        parts = tuple(part for spec in specs for part in spec.parts)
        widths = tuple(width for spec in specs for width in spec.widths)
        steps: list[RowStep] = []
        start = 0
        for spec in specs:
            steps += [step.shifted(start) for step in spec.steps]
            start += spec.width
        return cls(parts, widths, tuple(steps))

    def with_step(self, step: RowStep) -> DerivedSpec:
        """Return the spec of the same features after another step."""
        return replace(self, steps=(*self.steps, step))

    @property
    def backbone(self) -> str:
        """The names of the backbones."""
        return " + ".join(part.backbone for part in self.parts)

    @property
    def layer(self) -> str:
        """The names of the layers."""
        return " + ".join(part.layer for part in self.parts)

    @property
    def width(self) -> int:
        """Number of values of a row after all steps."""
        return width_after(self.steps, sum(self.widths))

    def components(self) -> dict[str, Any]:
        """Return what the key is made of, as JSON types."""
        return {
            "parts": [part.components() for part in self.parts],
            "steps": [step.components() for step in self.steps],
        }

    @property
    def key(self) -> str:
        """A hash of the parts' keys and the steps, 64 hexadecimal digits."""
        steps = [json.dumps(step.components(), sort_keys=True) for step in self.steps]
        return content_key({"parts": [part.key for part in self.parts], "steps": steps})

    def row_bytes(self) -> int:
        """Return the bytes that the values of a row take in the stores of all parts."""
        return sum(p.row_bytes(width) for p, width in zip(self.parts, self.widths, strict=True))

    @property
    def is_own_model(self) -> bool:
        """Whether a backbone is a model of the caller's, and not in the table."""
        return any(part.is_own_model for part in self.parts)

    @property
    def is_imported(self) -> bool:
        """Whether the features of a part were computed elsewhere."""
        return any(part.is_imported for part in self.parts)


FeatureSpec: TypeAlias = BackboneSpec | DerivedSpec


def arguments_of_parts(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the arguments of `featcache.extract` for each backbone of `Features.arguments`."""
    return list(arguments["parts"]) if "parts" in arguments else [arguments]


def join_arguments(several: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return `Features.arguments` of several backbones; of one, its arguments."""
    return several[0] if len(several) == 1 else {"parts": list(several)}


def origin_of(spec: FeatureSpec, names: Sequence[str]) -> str:
    """Return backbone and layer of features, human-readable; `names` are those of the backbones."""
    if isinstance(spec, BackboneSpec):
        return f"{names[0]}/{spec.layer}"
    layers = [part.layer for part in spec.parts]
    described = " + ".join(f"{name}/{layer}" for name, layer in zip(names, layers, strict=True))
    for number, step in enumerate(spec.steps):
        width = width_after(spec.steps[:number], sum(spec.widths))
        columns = "" if step.width == width else f"[{step.start}:{step.start + step.width}]"
        described += f" > {step}{columns}"
    return described
