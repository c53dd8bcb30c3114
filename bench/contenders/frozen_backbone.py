"""`FrozenBackbone`: the stored features of one backbone, of images and of their mirror images."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import Features
from featcache.errors import InvalidRequest, NoUsableImages
from featcache.toolkit import (
    BackboneLike,
    OnnxBackbone,
    find_backbone,
    format_count,
    is_model_file,
    is_onnx_file,
)

from ..splits import Images
from .describe import describe_network, describe_onnx_network
from .measure import MODEL_OPTIONS, Estimate, extraction_estimate

_FLIP: Mapping[str, Any] = {"views": 2, "augmentation": "flip"}


class FrozenBackbone:
    """A frozen backbone with its arguments, and the features that it gave.

    Parameters
    ----------
    backbone : str, path or keras.Model
        As for `featcache.extract`.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    **options
        Further arguments of `featcache.extract`, such as ``layer`` or ``weights``.

    Raises
    ------
    InvalidRequest
        If augmented views are asked for: a contender reads one row per image.
    """

    def __init__(
        self,
        backbone: BackboneLike,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        several = sorted({"views", "augmentation"} & set(options))
        if several:
            raise InvalidRequest(
                f"{several[0]}= is not an option of a head in a comparison, which reads one row "
                "per image; tta=True averages the predictions for an image and its mirror image.",
                received=options[several[0]],
            )
        self.backbone = backbone
        self._options = {"cache_dir": cache_dir, **options}
        self._model_options = {k: v for k, v in self._options.items() if k in MODEL_OPTIONS}
        self._features: Features | None = None
        self._flips: Features | None = None
        self._rows: dict[str, int] = {}
        self._flip_rows: dict[str, int] = {}

    @property
    def features(self) -> Features:
        """Features of all images; raises `InvalidRequest` before `prepare`."""
        if self._features is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        return self._features

    def prepare(self, images: Images, progress: bool | None = None) -> dict[str, str]:
        """Extract the features of all images that are not stored yet; return what is unusable."""
        self._features = features = self._extract(images, progress)
        self._flips, self._flip_rows = None, {}
        self._rows = {image_id: row for row, image_id in enumerate(features.example_ids)}
        return {images.ids[bad.position]: bad.reason for bad in features.quarantined}

    def embeddings(self, images: Images) -> NDArray[np.float32]:
        """Return the stored rows (n, d) of images that `prepare` was given."""
        features = self.features
        missing = [image_id for image_id in images.ids if image_id not in self._rows]
        if missing:
            raise InvalidRequest(
                f"prepare() was not given {format_count(len(missing), 'image')} of these; pass all "
                "images to it.",
                received=missing,
            )
        return features.X[[self._rows[image_id] for image_id in images.ids]]

    def prepare_flips(self, images: Images) -> float:
        """Extract the mirror images that are not stored yet; return the seconds it took."""
        started = time.perf_counter()
        if any(image_id not in self._flip_rows for image_id in images.ids):
            both = self._extract(images, None, **_FLIP)
            self._flips = flips = both[both.views == 1]
            self._flip_rows = {image_id: row for row, image_id in enumerate(flips.example_ids)}
        return time.perf_counter() - started

    def flipped_embeddings(self, images: Images) -> NDArray[np.float32]:
        """Return the rows (n, d) of the mirror images that `prepare_flips` was given."""
        assert self._flips is not None
        return self._flips.X[[self._flip_rows[image_id] for image_id in images.ids]]

    def extract_seconds(self) -> float:
        """Return the seconds of computing all features, even if that was before this run."""
        seconds = self.features.summary.seconds_per_image * len(self.features)
        if self._flips is not None:
            # That of the views of an image is the sum over its views.
            more = self._flips.summary.seconds_per_image - self.features.summary.seconds_per_image
            seconds += max(0.0, more) * len(self._flips)
        return float(seconds)

    def disk_bytes(self) -> int:
        """Return the size of the store, and of the rows of the mirror images."""
        size = featcache.open_store(self.features.summary.folder).size_on_disk()
        flips = self._flips
        return int(size) + (0 if flips is None else flips.spec.row_bytes(flips.X.size))

    def computed_now(self) -> int:
        """Return the number of embeddings that were computed in this run."""
        flips = 0 if self._flips is None else self._flips.summary.computed
        return self.features.summary.computed + flips

    def estimate(self, images: Images, n_flips: int = 0) -> Estimate:
        """Estimate the extraction of what is not stored yet, with that many mirror images."""
        if not n_flips:
            return extraction_estimate(self.backbone, images, self._options)
        first, rest = range(n_flips), range(n_flips, len(images))
        both = extraction_estimate(self.backbone, images.take(first), {**self._options, **_FLIP})
        plain = extraction_estimate(self.backbone, images.take(rest), self._options)
        return replace(
            both,
            what=f"{both.what}, with mirror images, and {plain.what}",
            seconds=both.seconds + plain.seconds,
            disk_bytes=both.disk_bytes + plain.disk_bytes,
            stored=both.stored + plain.stored,
        )

    def work(self) -> str:
        """Return a name of the extraction, which contenders share."""
        return f"{self.backbone} {sorted(self._model_options.items(), key=str)}"

    def network(self) -> dict[str, Any]:
        """Describe the network, which is built for this."""
        resolved = featcache.load_backbone(self.backbone, **self._model_options)
        if isinstance(resolved.backbone, OnnxBackbone):
            return describe_onnx_network(resolved.backbone)
        return describe_network(resolved.request.name, resolved.backbone.model, None)

    def parameters(self) -> int:
        """Return the number of weights of the whole network."""
        if is_onnx_file(self.backbone):
            built = featcache.load_backbone(self.backbone, **self._model_options).backbone
            return built.count_params()
        if is_model_file(self.backbone):
            return int(featcache.load_model(self.backbone).count_params())
        if isinstance(self.backbone, str):
            return find_backbone(self.backbone).parameters
        return int(cast(Any, self.backbone).count_params())

    def _extract(self, images: Images, progress: bool | None, **views: Any) -> Features:
        options = {**self._options, **views}
        try:
            return featcache.extract(self.backbone, images.dataset(), progress=progress, **options)
        except NoUsableImages as error:
            raise NoUsableImages(
                f"{self.backbone}: {error}", quarantined=error.quarantined
            ) from error
