"""A bundle as a network for other programs: pixels in, probabilities out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, write_atomic
from .._io.new_file import check_new_path
from .._version import __version__
from ..backbones.keras_types import BackboneLike
from ..backbones.model import Backbone
from ..backbones.onnx.backbone import OnnxBackbone
from ..backbones.onnx.library import import_onnx, import_onnxruntime
from ..backbones.preprocessing import images_of_size
from ..backbones.resolve import build
from ..backbones.to_onnx.file import encode_network, run_network
from ..backbones.to_onnx.writer import GraphWriter
from ..backbones.weights import WeightsLike
from ..errors import NotExportable
from ..images.resize_rule import parse_resize
from .head_graph import write_head
from .onnx_head import OnnxOperations

if TYPE_CHECKING:
    from .bundle import Bundle

# Of a probability that a file gives, from that of the bundle.
TOLERANCE = 1e-4
_TRIED = 3


class NetworkFiles:
    """The methods of `Bundle` that write it as a network for other programs."""

    def to_onnx(
        self,
        path: str | os.PathLike[str],
        *,
        backbone: BackboneLike | None = None,
        weights: WeightsLike = None,
        overwrite: bool = False,
    ) -> None:
        """Write preprocessing, backbone and head as one ONNX network.

        Its input ``images`` takes RGB pixels of uint8, (n, h, w, 3), of the size of the
        backbone; its output ``probabilities`` is (n, k), float32, in the order of `classes`, up
        to 1e-4 equal to `predict`: some images are compared before the file is written. Photos are
        resized as before, which for upright RGB photos and ``resize="stretch"`` is
        ``PIL.Image.open(path).convert("RGB").resize((w, h), PIL.Image.Resampling.BILINEAR)``.
        The metadata of the file has ``classes`` (JSON), ``image_size`` (height x width) and
        ``resize``.

        Parameters
        ----------
        path : path
            Missing folders are created.
        backbone : keras.Model or path of a .keras or .onnx file, optional
            Needed if the bundle was made with a model that is not in the table.
        weights : path, optional
            Needed if the bundle was made with weights in a file.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        InvalidRequest
            If the file exists and `overwrite` is False, a layer or the preprocessing function
            cannot be written, or the file would give other probabilities.
        MissingExtra
            If `onnx` or `onnxruntime` is not installed.
        BundleMismatch, WeightsUnavailable
            As for `featcache.Predictor`.
        StoreWriteError
            If the write fails; an existing file is unchanged then.
        """
        target = check_new_path(path, overwrite=overwrite)
        import_onnx()
        import_onnxruntime()
        bundle = cast("Bundle", self)
        source = network_of(bundle, backbone, weights)

        def finish(writer: GraphWriter, embedding: str) -> str:
            return write_head(
                bundle.classifier, bundle.spec.row_dtype, OnnxOperations(writer), embedding
            )

        encoded = encode_network(
            source.backbone, source.image_size, finish, len(bundle.classes), file_metadata(bundle)
        )
        source.check(run_network(encoded, source.images))
        make_folder(target.parent)
        write_atomic(target, encoded, description="the ONNX network")


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
    def images(self) -> NDArray[np.uint8]:
        """Some images of the backbone's size."""
        return images_of_size(_TRIED, self.image_size)

    def check(self, found: NDArray[np.float32]) -> None:
        """Raise `NotExportable` unless probabilities of `images` are those of the bundle."""
        rows = self.backbone.embed_untraced(self.images)
        rounded = rows.astype(self.bundle.spec.row_dtype).astype(np.float32)
        expected = self.bundle.classifier.predict_proba(rounded)
        difference = np.abs(found - expected).max()
        if not difference <= TOLERANCE:  # also NaN
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
        If its preprocessing is a function, or it computes in bfloat16.
    BundleMismatch
        If it is not the bundle's.
    """
    given: Mapping[str, Any] = {} if weights is None else {"weights": weights}
    if bundle.spec.precision != "float32":
        raise NotExportable(
            f"The backbone of the bundle computes in {bundle.spec.precision}, and a network file "
            "computes in float32, so its probabilities would differ. Make the bundle with "
            "precision='float32'.",
            received=bundle.spec.precision,
        )
    chosen, arguments = bundle.extract_arguments(backbone, given)
    if arguments["preprocessing"] is None:
        raise NotExportable(
            "The preprocessing of the bundle is a function, which a network file cannot hold; make "
            "the bundle with a rule by name or a featcache.Normalization.",
            received="a function",
        )
    request = bundle.backbone_request(chosen, arguments)
    built = build(request, None)
    bundle.check_spec(built.spec)
    return NetworkSource(bundle, built.backbone, request.image_size)


def file_metadata(bundle: Bundle) -> dict[str, str]:
    """Return what a network file says of itself."""
    height, width = bundle.spec.image_size
    rule = parse_resize(bundle.spec.resize)
    classes: Sequence[Any] = bundle.classes
    return {
        "classes": json.dumps(list(classes)),
        "image_size": f"{height}x{width}",
        "resize": bundle.spec.resize if rule is None else rule.resize,
        "featcache": __version__,
        "key": bundle.spec.key,
    }
