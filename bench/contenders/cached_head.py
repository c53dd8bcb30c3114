"""`CachedHead`: a head on the stored features of one or several frozen backbones."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

import featcache
from featcache import Augmentation, Bundle, ClassifierStep
from featcache.errors import InvalidRequest
from featcache.toolkit import BackboneLike, views_of
from heads import Head, make_head

from ..splits import Images
from .base import Contender, ContenderInfo, Training
from .frozen_backbone import FLIP, FrozenBackbone
from .measure import Work


class CachedHead(Contender):
    """Contender: a head on the stored features of one or several frozen backbones.

    Parameters
    ----------
    backbone : str, path, keras.Model, FrozenBackbone, or a list of these
        As for `featcache.extract`. The features of several backbones are put side by side, each
        divided by its total standard deviation on the training part; an image that one of them
        cannot use is left out.
    head : str or Head
        A name in `heads.HEADS`, or a head with other parameters.
    views : int
        Number of views of each training image that the head is trained on, the image itself
        included; those of one photo are never both trained on and held out. Test images have no
        augmented views.
    augmentation : Augmentation or "flip", optional
        How the views differ, as for `featcache.extract`.
    tta : bool
        Test-time augmentation: predict the mean of the probabilities of each image and its mirror
        image. Only the mirror images of those that are predicted are extracted.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.
    **options
        Further arguments of `featcache.extract` for all backbones, such as ``layer`` or
        ``weights``; a `FrozenBackbone` has its own.

    Examples
    --------
    >>> both = CachedHead(["mobilenet_v2", FrozenBackbone("xception", image_size=224)], tta=True)
    >>> [part.backbone for part in both.parts]
    ['mobilenet_v2', 'xception']
    """

    def __init__(
        self,
        backbone: BackboneLike | FrozenBackbone | Sequence[BackboneLike | FrozenBackbone],
        head: str | Head = "logistic",
        *,
        views: int = 1,
        augmentation: Augmentation | Literal["flip"] | None = None,
        tta: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        given = list(backbone) if isinstance(backbone, (list, tuple)) else [backbone]
        if not given:
            raise InvalidRequest("CachedHead needs at least one backbone, not an empty list.")
        self.parts = [
            one
            if isinstance(one, FrozenBackbone)
            else FrozenBackbone(cast(BackboneLike, one), cache_dir=cache_dir, **options)
            for one in given
        ]
        self.head = make_head(head) if isinstance(head, str) else head
        listed = views_of(views, augmentation)
        self.views, self.tta = len(listed), tta
        self.augmentation = listed[-1].augmentation if self.views > 1 else None
        self.quick = self.head.trains_in_seconds
        self._fit_seconds: float | None = None
        self._predict_seconds: float | None = None

    def prepare(self, images: Images, progress: bool | None = None) -> Mapping[str, str]:
        """Extract the features of all images that are not stored yet."""
        unusable: dict[str, str] = {}
        for part in self.parts:
            unusable |= part.prepare(images, progress)
        return unusable

    def train(self, training: Training) -> None:
        """Train the head on the stored rows of all views of the images."""
        views = self._view_options()
        extraction = 0.0
        if views is not None:
            for part in self.parts:
                extraction += part.prepare_views(
                    "training", training.images, views, training.progress
                )
        started = time.perf_counter()
        self._train_on_rows(training)
        # Without the extraction of views, which `extract_seconds` has.
        self._fit_seconds = time.perf_counter() - started if extraction else None

    def _train_on_rows(self, training: Training) -> None:
        head = cast(Head, clone(self.head))
        if "random_state" in head.get_params():
            head.set_params(random_state=training.random_state)
        self._n_classes = training.n_classes
        blocks = [self._training_rows(part, training.images) for part in self.parts]
        # Otherwise distances would be those of the backbone with the largest values. One backbone
        # alone stays as it is, so that a bundle of the head takes its embeddings.
        alone = len(blocks) == 1
        self._scales = [1.0 if alone else _total_std(block) for block in blocks]
        # Boxes and views of one photo are not both trained on and held out.
        self._trained = head.fit(
            self._joined(blocks),
            np.tile(training.codes, self.views),
            groups=training.images.photos * self.views,
        )

    def _view_options(self) -> Mapping[str, Any] | None:
        """Return the arguments of `featcache.extract` for the views; None for the images alone."""
        if self.views == 1:
            return None
        return {"views": self.views, "augmentation": self.augmentation}

    def _training_rows(self, part: FrozenBackbone, images: Images) -> NDArray[np.float32]:
        """Return the rows of all views: those of the images, then those of view 1, and so on."""
        others = [part.view_embeddings("training", images, v) for v in range(1, self.views)]
        return np.concatenate([part.embeddings(images), *others])

    def predict_proba(self, images: Images) -> NDArray[np.float64]:
        """Predict from the stored rows; classes without training images get probability 0."""
        extraction = 0.0
        if self.tta:
            extraction = sum(part.prepare_views("test", images, FLIP) for part in self.parts)
        started = time.perf_counter()
        proba = self._predict([part.embeddings(images) for part in self.parts])
        if self.tta:
            proba += self._predict([part.view_embeddings("test", images, 1) for part in self.parts])
            proba /= 2
        # Without the extraction of mirror images, which `extract_seconds` has.
        self._predict_seconds = time.perf_counter() - started if extraction else None
        return proba

    def facts(self) -> ContenderInfo:
        """Describe backbones, head and the cost of the features."""
        summaries = [part.features.summary for part in self.parts]
        parameters = self._trained.n_parameters
        kinds = [summary.weights_kind for summary in summaries]
        computed = sum(part.computed_now() for part in self.parts)
        specs = [part.features.spec for part in self.parts]
        return ContenderInfo(
            extract_seconds=sum(part.extract_seconds() for part in self.parts),
            backbone=" + ".join(summary.backbone for summary in summaries),
            weights=" + ".join(dict.fromkeys(summary.weights for summary in summaries)),
            # Of several, one that may have seen the photos, if there is one.
            weights_kind=next((kind for kind in kinds if kind != "random"), kinds[0]),
            trainable_parameters=parameters,
            total_parameters=parameters + sum(part.parameters() for part in self.parts),
            disk_bytes=sum(part.disk_bytes() for part in self.parts),
            computed_now=computed,
            fit_seconds=self._fit_seconds,
            predict_seconds=self._predict_seconds,
            history=getattr(self._trained, "history_", {}),
            notes={
                "store": " + ".join(Path(summary.folder).name for summary in summaries),
                "key": " + ".join(spec.key for spec in specs),
                "layer": " + ".join(spec.layer for spec in specs),
                "head": " ".join(repr(self.head).split()),
                "computed_now": str(computed),
                **({"views": f"{self.views}, {self.augmentation}"} if self.views > 1 else {}),
                **({"tta": "mean over the image and its mirror image"} if self.tta else {}),
            },
        )

    def works(self, images: Images, n_train: int, n_classes: int) -> list[Work]:
        """Return the extractions, which heads on the same backbones share."""
        views = self._view_options()
        return [
            work for part in self.parts for work in part.works(images, n_train, views, tta=self.tta)
        ]

    def bundle(
        self, classes: Sequence[str], metrics: Mapping[str, float], metadata: Mapping[str, str]
    ) -> Bundle | None:
        """Return a bundle of the trained head, with the names of the classes.

        None for a head that no bundle can hold, for one backbone twice, and with `tta`, since a
        bundle would predict otherwise than it was scored.
        """
        parts = [part.features for part in self.parts]
        twice = len({features.spec.key for features in parts}) < len(parts)
        if not self.head.can_be_bundled or twice or self.tta:
            return None
        names = [classes[code] for code in self._trained.classes_]
        classifier = self._trained.to_classifier(names)
        if len(parts) > 1:
            scale = np.repeat(self._scales, [features.X.shape[1] for features in parts])
            scaling = ClassifierStep("standardise", {"mean": np.zeros_like(scale), "scale": scale})
            classifier = replace(classifier, steps=[scaling, *classifier.steps])
        features = featcache.concat(parts)
        return featcache.make_bundle(features, classifier, metrics=metrics, metadata=metadata)

    def network(self) -> dict[str, Any] | None:
        """Describe the backbones, which are frozen and are built for this; counts are sums."""
        found = [part.network() for part in self.parts]
        kinds = sum((Counter(one["kinds"]) for one in found), Counter[str]())
        return {
            **found[0],
            "network": " + ".join(one["network"] for one in found),
            "layers": sum(one["layers"] for one in found),
            "depth": max(one["depth"] for one in found),
            "parameters": sum(one["parameters"] for one in found),
            "kinds": dict(kinds.most_common()),
        }

    def _joined(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Put the embeddings of all backbones side by side."""
        if len(blocks) == 1:
            return blocks[0]
        scaled = [rows / scale for rows, scale in zip(blocks, self._scales, strict=True)]
        return np.hstack(scaled).astype(np.float32, copy=False)

    def _predict(self, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        return proba_of(self._trained, self._joined(blocks), self._n_classes)


def proba_of(head: Head, X: NDArray[np.float32], n_classes: int) -> NDArray[np.float64]:
    """Return the probabilities of a head trained on class codes; 0 for classes without images."""
    proba = np.zeros((len(X), n_classes))
    proba[:, head.classes_] = head.predict_proba(X)
    return proba


def _total_std(rows: NDArray[np.float32]) -> float:
    """Return the root of the sum of the columns' variances; 1 if all rows are equal."""
    std = float(np.sqrt(rows.var(axis=0, dtype=np.float64).sum()))
    return std or 1.0
