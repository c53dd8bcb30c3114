"""Choice of what a fine-tuned network reads: stored outputs of its frozen part, or pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from featcache import Augmentation, import_keras
from featcache.toolkit import (
    BackboneLike,
    BackboneOptions,
    BuiltBackbone,
    RowDtype,
    View,
    format_count,
    get_logger,
    make_request,
    views_of,
)

from ..contenders.frozen_backbone import FrozenBackbone
from ..contenders.measure import Estimate, Work, seconds_of, seconds_to_decode
from ..splits import Images
from .boundary import Boundary, find_boundary
from .inputs import Inputs, PixelInputs, StoredInputs, boundary_options
from .network import NO_AUGMENTATION, first_free_layer, weight_counts
from .pixels import decoded

log = get_logger(__name__)

MAX_CACHE = 20 * 2**30  # bytes
_BYTES_PER_SECOND = 5e8  # that rows are read at from a disk
_DEFAULT_VIEWS = 4


@dataclass(frozen=True)
class Views:
    """The views of each training image; the seed is always 0, so that runs share the stored rows.

    Attributes
    ----------
    count : int
    augmentation : Augmentation or "flip"

    Raises
    ------
    InvalidRequest
        If there are no such views.
    """

    count: int
    augmentation: Augmentation | Literal["flip"]

    def __post_init__(self) -> None:
        self.listed()

    def options(self) -> dict[str, Any]:
        """Return the arguments of `featcache.extract` for these views."""
        several = {"augmentation": self.augmentation} if self.count != 1 else {}
        return {"views": self.count, "random_state": 0, **several}

    def listed(self) -> list[View]:
        """Return the views in their order."""
        options = self.options()
        return views_of(options.pop("views"), **options)


def view_count(asked: int | None, augmentation: Augmentation | Literal["flip"]) -> int:
    """Return the number of views of each training image; None asks for the default."""
    if augmentation == NO_AUGMENTATION:
        return 1
    if asked is not None:
        return asked
    return 2 if augmentation == "flip" else _DEFAULT_VIEWS  # there is one mirror image


@dataclass(frozen=True)
class InputPlan:
    """The settings of a fine-tune that determine its inputs.

    Attributes
    ----------
    backbone : str or keras.Model
    options : mapping
        Further arguments of `featcache.extract`.
    unfreeze, boundary, boundary_dtype, max_cache
        As for `FineTuned`.
    views : Views
    batch_size : int
    """

    backbone: BackboneLike
    options: Mapping[str, Any]
    unfreeze: float | int | str
    boundary: str | None
    boundary_dtype: RowDtype
    max_cache: int
    views: Views
    batch_size: int

    def find_boundary(self, resolved: BuiltBackbone, n_images: int) -> Boundary | None:
        """Return the boundary to store; None to train on pixels. The log says which, and why.

        Raises
        ------
        InvalidRequest
            If `unfreeze` or `boundary` names no such layer.
        """
        body = resolved.backbone.model
        first = first_free_layer(weight_counts(body), self.unfreeze)
        boundary = find_boundary(body, first, self.boundary)
        if boundary is None or not self.max_cache:
            return None
        needed = self._bytes(boundary) * n_images * self.views.count
        log.info(
            "%s: the outputs of the boundary %r (%s) take at most %.1f GB for %s of %s",
            self.backbone, boundary.layer, " x ".join(map(str, boundary.shape)), needed / 1e9,
            format_count(self.views.count, "view"), format_count(n_images, "image"),
        )  # fmt: skip
        if needed > self.max_cache:
            log.info("That is more than max_cache (%.1f GB): training on pixels",
                     self.max_cache / 1e9)  # fmt: skip
            return None
        return boundary if self._reads_faster(resolved, boundary) else None

    def _bytes(self, boundary: Boundary) -> int:
        """Return the bytes of the stored outputs of a boundary for one view of one image."""
        return np.dtype(self.boundary_dtype).itemsize * boundary.width

    def _reads_faster(self, resolved: BuiltBackbone, boundary: Boundary) -> bool:
        """Return whether reading the boundary's outputs is faster than computing them again."""
        height, width = resolved.spec.image_size
        if self._bytes(boundary) <= 3 * height * width:
            return True
        frozen = import_keras().Model(resolved.backbone.model.input, boundary.tensor)
        pixels = np.zeros((self.batch_size, height, width, 3), np.float32)
        computing = seconds_of(lambda: frozen.predict_on_batch(pixels)) / len(pixels)
        reading = self._bytes(boundary) / _BYTES_PER_SECOND
        if reading > computing:
            log.info("Reading them takes longer than computing them: training on pixels")
        return reading <= computing

    def make_inputs(
        self, boundary: Boundary | None, images: Images, progress: bool | None
    ) -> Inputs:
        """Compute the boundary's outputs for all images, or decode them."""
        if boundary is not None:
            stored = StoredInputs(
                self.backbone, boundary, self._extract_options(boundary), self.views.options()
            )
            stored.extract(images, progress)
            return stored
        options = {name: v for name, v in self.options.items() if name != "cache_dir"}
        request = make_request(self.backbone, BackboneOptions(**options))
        pixels = decoded(
            images, request.image_size, request.resize, cache_dir=self.options.get("cache_dir"),
            progress=progress,
        )  # fmt: skip
        return PixelInputs(pixels, self.views.listed())

    def _extract_options(self, boundary: Boundary) -> dict[str, Any]:
        return boundary_options(boundary, self.options, self.boundary_dtype)

    def works(
        self, boundary: Boundary | None, images: Images, n_train: int, resolved: BuiltBackbone
    ) -> list[Work]:
        """Return the work of computing the inputs; views are of the first `n_train` images."""
        if boundary is not None:
            stored = FrozenBackbone(self.backbone, **self._extract_options(boundary))
            views = self.views.options() if self.views.count > 1 else None
            return stored.works(images, n_train, views)
        height, width = resolved.spec.image_size
        resize = resolved.request.resize

        def measure() -> Estimate:
            decode = seconds_to_decode(images, (height, width), resize)
            return Estimate(
                "decoded pixels", decode * len(images), len(images) * height * width * 3
            )

        return [Work(f"pixels {height} x {width} {resize}", len(images), measure)]
