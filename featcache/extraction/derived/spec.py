"""The spec of features that are derived from stored rows of one or several backbones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...backbones.spec import BackboneSpec, content_key
from ...errors import InvalidRequest

MAX_PARTS = 64


@dataclass(frozen=True)
class DerivedSpec:
    """What determines derived features: the specs of the backbones side by side.

    It has the attributes of a `BackboneSpec` that callers use, of all parts together.

    Attributes
    ----------
    parts : tuple of BackboneSpec
        In the order of their columns.
    widths : tuple of int
        Number of values of each part.

    Raises
    ------
    InvalidRequest
        If there is no part, more than 64, or another number of widths.
    """

    parts: tuple[BackboneSpec, ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.parts) <= MAX_PARTS or len(self.parts) != len(self.widths):
            raise InvalidRequest(
                f"Derived features have 1 to {MAX_PARTS} parts with a width each, not "
                f"{len(self.parts)} parts and {len(self.widths)} widths.",
                received=len(self.parts),
            )

    @classmethod
    def of(cls, spec: FeatureSpec, width: int) -> DerivedSpec:
        """Return the derived spec of features of `width` values; of stored rows, with one part."""
        return spec if isinstance(spec, DerivedSpec) else cls((spec,), (width,))

    @classmethod
    def joined(cls, specs: Sequence[DerivedSpec]) -> DerivedSpec:
        """Return the spec of features side by side."""
        parts = tuple(part for spec in specs for part in spec.parts)
        return cls(parts, tuple(width for spec in specs for width in spec.widths))

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
        """Number of values of a row."""
        return sum(self.widths)

    def components(self) -> dict[str, Any]:
        """Return what the key is made of, as JSON types."""
        return {"parts": [part.components() for part in self.parts]}

    @property
    def key(self) -> str:
        """A hash of the parts' keys, 64 hexadecimal digits."""
        return content_key({"parts": [part.key for part in self.parts]})

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


def origin_of(spec: FeatureSpec, names: Sequence[str]) -> str:
    """Return backbone and layer of features, human-readable; `names` are those of the backbones."""
    if isinstance(spec, BackboneSpec):
        return f"{names[0]}/{spec.layer}"
    layers = [part.layer for part in spec.parts]
    return " + ".join(f"{name}/{layer}" for name, layer in zip(names, layers, strict=True))
