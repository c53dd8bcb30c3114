"""What a network file is written from, and what its probabilities are compared with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..backbones.keras_types import BackboneLike
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.preprocessing import images_of_size
from ..backbones.resolve import build
from ..backbones.weights import WeightsLike
from ..errors import NotExportable
from ..extraction.derived.steps import RowStep
from ..images.resize_rule import parse_resize
from .classifier import Classifier, ClassifierStep
from .head_graph import Operations, write_head

if TYPE_CHECKING:
    from .bundle import Bundle

# Of a probability that a file gives, from that of the bundle.
TOLERANCE = 1e-4
_TRIED = 3
T = TypeVar("T")


@dataclass(frozen=True)
class NetworkSource:
    """What a network is written from, and what it is compared with.

    Attributes
    ----------
    bundle : Bundle
    backbone : Backbone or OnnxBackbone
        Its preprocessing rule is not a function.
    image_size : (int, int)
        Height and width.
    """

    bundle: Bundle
    backbone: Backbone | OnnxBackbone
    image_size: tuple[int, int]

    @property
    def row_dtype(self) -> str:
        """The dtype to which embeddings are rounded."""
        return self.bundle.parts[0].spec.row_dtype

    @property
    def classifier(self) -> Classifier:
        """The steps of the bundle and its head as one classifier of embeddings."""
        bundle = self.bundle
        before = [one for step in bundle.steps for one in _as_classifier_steps(step)]
        width = bundle.steps[0].width if bundle.steps else bundle.classifier.width
        return replace(bundle.classifier, steps=[*before, *bundle.classifier.steps], width=width)

    @property
    def images(self) -> NDArray[np.uint8]:
        """Some images of the backbone's size."""
        return images_of_size(_TRIED, self.image_size)

    def finish(self, operations: Operations[T], embedding: T) -> T:
        """Return the probabilities of an embedding."""
        return write_head(self.classifier, self.row_dtype, operations, embedding)

    def check(self, found: NDArray[np.float32]) -> None:
        """Raise `NotExportable` unless probabilities of `images` are those of the bundle."""
        rows = self.backbone.embed_untraced(self.images)
        rounded = rows.astype(self.row_dtype).astype(np.float32)
        expected = self.classifier.predict_proba(rounded)
        difference = np.abs(found - expected).max()
        # A number between two of float16 may be rounded the other way.
        rounding = np.abs(self.classifier.predict_proba(rows) - expected).max()
        if not difference <= TOLERANCE + 4 * rounding:  # also NaN
            raise NotExportable(
                f"The network would give probabilities that differ by up to {difference:.2g} from "
                f"those of the bundle, and {TOLERANCE:g} is the limit, so it was not written. "
                "Embeddings or numbers of the head that are very large or very close together "
                "need more digits than float32 has: train a head on standardized features.",
                received=float(difference),
            )


def network_of(
    bundle: Bundle, backbone: BackboneLike | None, weights: WeightsLike
) -> NetworkSource:
    """Return the backbone of a bundle, loaded; refuse one that no file can hold.

    Raises
    ------
    InvalidRequest
        If there are several, its preprocessing is a function, or it computes in bfloat16.
    BundleMismatch
        If it is not the bundle's.
    """
    given: Mapping[str, Any] = {} if weights is None else {"weights": weights}
    if len(bundle.parts) > 1:
        raise NotExportable(
            f"The bundle has {len(bundle.parts)} backbones, and a network file holds one. Make the "
            "bundle from features of one backbone.",
            received=len(bundle.parts),
        )
    (part,) = bundle.parts
    if part.spec.precision != "float32":
        raise NotExportable(
            f"The backbone of the bundle computes in {part.spec.precision}, and a network file "
            "computes in float32, so its probabilities would differ. Make the bundle with "
            "precision='float32'.",
            received=part.spec.precision,
        )
    chosen, arguments = part.extract_arguments(backbone, given)
    if arguments["preprocessing"] is None:
        raise NotExportable(
            "The preprocessing of the bundle is a function, which a network file cannot hold; make "
            "the bundle with a rule by name or a featcache.Normalization.",
            received="a function",
        )
    request = part.request(chosen, arguments)
    built = build(request, None)
    part.check_spec(built.spec)
    return NetworkSource(bundle, built.backbone, request.image_size)


def file_metadata(bundle: Bundle) -> dict[str, str]:
    """Return what a network file says of itself."""
    spec = bundle.parts[0].spec
    height, width = spec.image_size
    rule = parse_resize(spec.resize)
    classes: Sequence[Any] = bundle.classes
    return {
        "classes": json.dumps(list(classes)),
        "image_size": f"{height}x{width}",
        "resize": spec.resize if rule is None else rule.resize,
        "featcache": __version__,
        "key": bundle.spec.key,
    }


def _as_classifier_steps(step: RowStep) -> list[ClassifierStep]:
    """Return the steps of a classifier that transform whole rows like a step of features."""
    if step.name == "l2":
        return [ClassifierStep("normalise")]
    mean = step.arrays["mean"]
    if step.name == "standardize":
        return [ClassifierStep("standardise", {"mean": mean, "scale": step.arrays["scale"]})]
    axes = step.arrays["components"].T
    centre = ClassifierStep("standardise", {"mean": mean, "scale": np.ones_like(mean)})
    bias = np.zeros(axes.shape[1], np.float32)
    return [centre, ClassifierStep("linear", {"weights": axes, "bias": bias})]
