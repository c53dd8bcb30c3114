"""`FrozenBackbone`: the stored features of one backbone, of images and of their views."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

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
    is_hub_backbone,
    is_model_file,
    is_onnx_file,
)

from ..splits import Images
from .describe import describe_network, describe_onnx_network
from .measure import MODEL_OPTIONS, Work, extraction_estimate
from .view_rows import ViewRows

Views = Mapping[str, Any]
Part = Literal["training", "test"]
FLIP: Views = {"views": 2, "augmentation": "flip"}


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
        If augmented views are asked for, which `CachedHead` does.
    """

    def __init__(
        self,
        backbone: BackboneLike,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        several = sorted({"views", "augmentation", "random_state"} & set(options))
        if several:
            raise InvalidRequest(
                f"{several[0]}= is not an option of a backbone: give views= and augmentation= to "
                "CachedHead. Their seed is 0, so that all contenders share the stored rows.",
                received=options[several[0]],
            )
        self.backbone = backbone
        self._options = {"cache_dir": cache_dir, **options}
        self._model_options = {k: v for k, v in self._options.items() if k in MODEL_OPTIONS}
        self._features: Features | None = None
        self._views: dict[str, ViewRows] = {}
        self._viewed: dict[str, frozenset[str]] = {}  # example ids that each part was asked for
        self._rows: dict[str, int] = {}
        self._n_computed = 0

    @property
    def features(self) -> Features:
        """Features of all images; raises `InvalidRequest` before `prepare`."""
        if self._features is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        return self._features

    def prepare(self, images: Images, progress: bool | None = None) -> dict[str, str]:
        """Extract the features of all images that are not stored yet; return what is unusable."""
        self._features = features = self._extract(images, progress)
        self._views, self._n_computed = {}, features.summary.computed
        self._rows = {image_id: row for row, image_id in enumerate(features.example_ids)}
        return {images.ids[bad.position]: bad.reason for bad in features.quarantined}

    def embeddings(self, images: Images) -> NDArray[np.float32]:
        """Return the stored rows (n, d) of images that `prepare` was given."""
        return self._read(images.ids)

    def _read(self, ids: Sequence[str]) -> NDArray[np.float32]:
        features = self.features
        missing = [image_id for image_id in ids if image_id not in self._rows]
        if missing:
            raise InvalidRequest(
                f"prepare() was not given {format_count(len(missing), 'image')} of these; pass all "
                "images to it.",
                received=missing,
            )
        return features.X[[self._rows[image_id] for image_id in ids]]

    def prepare_views(
        self, part: Part, images: Images, views: Views, progress: bool | None = None
    ) -> float:
        """Extract the views of images that are not stored yet; return the seconds it took.

        Parameters
        ----------
        part : {"training", "test"}
            What the images are; each has views of its own.
        images : Images
        views : mapping
            Arguments of `featcache.extract` that select views.
        progress : bool, optional
        """
        started = time.perf_counter()
        if part not in self._views or not self._viewed[part].issuperset(images.ids):
            features = self._extract(images, progress, **views)
            self._n_computed += features.summary.computed
            self._views[part] = ViewRows(features)
            self._viewed[part] = frozenset(images.ids)
        return time.perf_counter() - started

    def view_embeddings(self, part: Part, images: Images, view: int) -> NDArray[np.float32]:
        """Return the rows (n, d) of a view of images that `prepare_views` was given.

        An image that lacks one, since its row is not finite, has the row of the image itself.
        """
        return self._views[part].read(images.ids, view, self._read)

    def extract_seconds(self) -> float:
        """Return the seconds of computing all features, even if that was before this run."""
        each = self.features.summary.seconds_per_image
        seconds = each * len(self.features)
        for stored in self._views.values():
            # That of the views of an image is the sum over its views.
            more = max(0.0, stored.features.summary.seconds_per_image - each)
            seconds += more * stored.count
        return float(seconds)

    def disk_bytes(self) -> int:
        """Return the size of the store, and of the rows of augmented views."""
        size = int(featcache.open_store(self.features.summary.folder).size_on_disk())
        for stored in self._views.values():
            size += stored.features[stored.features.views > 0].stored_bytes
        return size

    def computed_now(self) -> int:
        """Return the number of embeddings that were computed in this run."""
        return self._n_computed

    def works(
        self, images: Images, n_train: int, views: Views | None = None, *, tta: bool = False
    ) -> list[Work]:
        """Return the extraction of images, of views of the first `n_train` and of mirror images."""
        train, test = images.take(range(n_train)), images.take(range(n_train, len(images)))
        found = [self._work("", images, None)]
        if views is not None:
            found.append(self._work(f"training {sorted(views.items())}", train, views))
        if tta and len(test):
            found.append(self._work("mirror images", test, FLIP))
        return found

    def _work(self, suffix: str, images: Images, views: Views | None) -> Work:
        # Two models of your own may have one name.
        name = self.backbone if isinstance(self.backbone, (str, os.PathLike)) else id(self.backbone)
        options = sorted(self._model_options.items(), key=str)
        return Work(
            f"{name} {options} {suffix}",
            len(images),
            lambda: extraction_estimate(self.backbone, images, self._options, views),
        )

    def network(self) -> dict[str, Any]:
        """Describe the network, which is built for this."""
        resolved = featcache.load_backbone(self.backbone, **self._model_options)
        if isinstance(resolved.backbone, OnnxBackbone):
            return describe_onnx_network(resolved.backbone)
        return describe_network(resolved.request.name, resolved.backbone.model, None)

    def parameters(self) -> int:
        """Return the number of weights of the whole network."""
        if is_onnx_file(self.backbone) or is_hub_backbone(self.backbone):
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
