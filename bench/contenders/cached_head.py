"""`CachedHead`: a head on the stored features of a frozen backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

import featcache
from featcache import Bundle, Features
from featcache.errors import InvalidRequest, NoUsableImages
from featcache.toolkit import BackboneLike, find_backbone, format_count, is_model_file
from heads import Head, make_head

from ..splits import Images
from .base import Contender, ContenderInfo, Training
from .describe import describe_network
from .measure import MODEL_OPTIONS, Estimate, extraction_estimate


class CachedHead(Contender):
    """Contender: a head on the stored features of a frozen backbone.

    Parameters
    ----------
    backbone : str or keras.Model
        As for `featcache.extract`.
    head : str or Head
        A name in `heads.HEADS`, or a head with other parameters.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    **options
        Further arguments of `featcache.extract`, such as ``layer`` or ``weights``.
    """

    def __init__(
        self,
        backbone: BackboneLike,
        head: str | Head = "logistic",
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        self.backbone = backbone
        self.head = make_head(head) if isinstance(head, str) else head
        self._options = {"cache_dir": cache_dir, **options}
        self._model_options = {k: v for k, v in self._options.items() if k in MODEL_OPTIONS}
        self.quick = self.head.trains_in_seconds
        self._features: Features | None = None
        self._rows: dict[str, int] = {}

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Extract the features of all images that are not stored yet."""
        try:
            features = featcache.extract(
                self.backbone, images.dataset(), progress=progress, **self._options
            )
        except NoUsableImages as error:
            raise NoUsableImages(
                f"{self.backbone}: {error}", quarantined=error.quarantined
            ) from error
        self._features = features
        self._rows = {image_id: row for row, image_id in enumerate(features.example_ids)}
        return {images.ids[bad.position]: bad.reason for bad in features.quarantined}

    def train(self, training: Training) -> None:
        """Train the head on the stored rows of the images."""
        head = cast(Head, clone(self.head))
        if "random_state" in head.get_params():
            head.set_params(random_state=training.random_state)
        self._n_classes = training.n_classes
        # Boxes of one photo are not both trained on and held out.
        self._trained = head.fit(
            self._embeddings(training.images), training.codes, groups=training.images.photos
        )

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Predict from the stored rows; classes without training images get probability 0."""
        return proba_of(self._trained, self._embeddings(images), self._n_classes)

    def facts(self) -> ContenderInfo:
        """Describe backbone, head and the cost of the features."""
        assert self._features is not None
        summary = self._features.summary
        parameters = self._trained.n_parameters
        store = featcache.open_store(summary.folder)
        return ContenderInfo(
            extract_seconds=summary.seconds_per_image * len(self._features),
            backbone=summary.backbone,
            weights=summary.weights,
            weights_kind=summary.weights_kind,
            trainable_parameters=parameters,
            total_parameters=parameters + _backbone_parameters(self.backbone),
            disk_bytes=store.size_on_disk(),
            computed_now=summary.computed,
            history=getattr(self._trained, "history_", {}),
            notes={
                "store": summary.folder.name,
                "key": self._features.spec.key,
                "layer": self._features.spec.layer,
                "head": " ".join(repr(self.head).split()),
                "computed_now": str(summary.computed),
            },
        )

    def shared_work(self) -> str:
        """Return a name of the extraction, which heads on one backbone share."""
        return f"{self.backbone} {sorted(self._model_options.items(), key=str)}"

    def bundle(
        self, classes: Sequence[str], metrics: Mapping[str, float], metadata: Mapping[str, str]
    ) -> Bundle | None:
        """Return a bundle of the trained head, with the names of the classes.

        None for a head that no bundle can hold.
        """
        assert self._features is not None
        if not self.head.can_be_bundled:
            return None
        names = [classes[code] for code in self._trained.classes_]
        classifier = self._trained.to_classifier(names)
        return featcache.make_bundle(self._features, classifier, metrics=metrics, metadata=metadata)

    def estimate(self, images: Images, n_train: int, n_classes: int) -> Estimate:
        """Estimate the extraction of the images that are not stored yet, from a measured batch."""
        return extraction_estimate(self.backbone, images, self._options)

    def network(self) -> dict[str, Any] | None:
        """Describe the backbone, which is frozen and is built for this."""
        resolved = featcache.load_backbone(self.backbone, **self._model_options)
        return describe_network(resolved.request.name, resolved.backbone.model, None)

    def _embeddings(self, images: Images) -> NDArray[np.float32]:
        if self._features is None:
            raise InvalidRequest("Call prepare() with all images before fit() or predict_proba().")
        missing = [image_id for image_id in images.ids if image_id not in self._rows]
        if missing:
            raise InvalidRequest(
                f"prepare() was not given {format_count(len(missing), 'image')} of these; pass all "
                "images to it.",
                received=missing,
            )
        return self._features.X[[self._rows[image_id] for image_id in images.ids]]


def proba_of(head: Head, X: NDArray[np.float32], n_classes: int) -> NDArray[np.float64]:
    """Return the probabilities of a head trained on class codes; 0 for classes without images."""
    proba = np.zeros((len(X), n_classes))
    proba[:, head.classes_] = head.predict_proba(X)
    return proba


def _backbone_parameters(backbone: BackboneLike) -> int:
    if is_model_file(backbone):
        return int(featcache.load_model(backbone).count_params())
    if isinstance(backbone, str):
        return find_backbone(backbone).parameters
    return int(cast(Any, backbone).count_params())
