"""Save, load and use a bundle: a head as arrays, its classes, its backbone by reference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, write_atomic
from .._io.cache_dirs import cache_folder, weights_folder
from .._io.new_file import check_new_path
from .._io.paths import absolute_path
from .._io.wording import format_count
from ..backbones.keras_types import BackboneLike
from ..backbones.resolve import resolve
from ..data.dataset import Dataset
from ..data.folder import images_below
from ..errors import BundleMismatch, InvalidRequest, NoUsableImages
from ..extraction.concat import join
from ..extraction.derived.spec import DerivedSpec, FeatureSpec, arguments_of_parts, origin_of
from ..extraction.derived.steps import RowStep
from ..extraction.features import Features
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE
from ..printable import printable
from .bundle_file import read_bundle, write_bundle
from .bundle_part import BundlePart, passes_of, requests_of
from .classifier import Classifier
from .model_card import model_card
from .network_files import NetworkFiles

_COLUMNS = ("path_column", "label_column")


@dataclass(frozen=True)
class Prediction:
    """Predicted classes of one photo.

    Attributes
    ----------
    path : str
    top_classes : list of (class, float)
        The most probable classes and their probabilities, in descending order; empty if the
        photo cannot be used.
    reason : str or None
        Why the photo cannot be used; None if it can.
    """

    path: str
    top_classes: list[tuple[Any, float]]
    reason: str | None = None


@dataclass(frozen=True)
class Bundle(NetworkFiles):
    """A classifier of photos: a head, and the spec of the embeddings that it was trained on.

    Attributes
    ----------
    classifier : Classifier
        The trained head.
    spec : BackboneSpec or DerivedSpec
        Spec of the training features; features of another key are refused.
    arguments : mapping of str to Any
        `Features.arguments` of the training features.
    metrics : mapping of str to float
        Metrics for the model card, such as the accuracy on a test set, by name.
    metadata : mapping of str to str
        Further entries of the model card, such as the name of the data set.
    """

    classifier: Classifier
    spec: FeatureSpec
    arguments: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[Any]:
        """Labels in the order of the columns of `predict_proba`, of the type used in training."""
        return self.classifier.classes

    @property
    def file_options(self) -> tuple[str, ...]:
        """Options of ``featcache predict`` for model and weights files, if some are needed."""
        words = dict.fromkeys(part.file_options for part in self.parts)
        return tuple(word for each in words for word in each)

    @property
    def parts(self) -> list[BundlePart]:
        """The backbones whose embeddings stand side by side; usually one."""
        specs = self.spec.parts if isinstance(self.spec, DerivedSpec) else (self.spec,)
        arguments = arguments_of_parts(self.arguments)
        return [BundlePart(spec, own) for spec, own in zip(specs, arguments, strict=True)]

    @property
    def steps(self) -> tuple[RowStep, ...]:
        """The steps that transform the embeddings before the head."""
        return self.spec.steps if isinstance(self.spec, DerivedSpec) else ()

    def __repr__(self) -> str:
        classes = format_count(len(self.classes), "class", "classes")
        names = [str(part.arguments.get("backbone")) for part in self.parts]
        return f"<Bundle of {classes} on {origin_of(self.spec, names)}, key {self.spec.key[:16]}>"

    def card(self) -> str:
        """Return the model card, in Markdown, as the Hugging Face Hub shows it.

        Of `metadata`, ``Data`` names the data set of `metrics` there, and ``License`` the license.
        """
        return model_card(self.classifier, self.spec, self.arguments, self.metrics, self.metadata)

    def save_card(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model card to a file, such as the ``README.md`` of a repository.

        Parameters
        ----------
        path : path
            Missing folders are created.
        overwrite : bool
            Replace an existing file.

        Raises
        ------
        InvalidRequest
            If the file exists and `overwrite` is False.
        StoreWriteError
            If the write fails; an existing file is unchanged then.
        """
        target = check_new_path(path, overwrite=overwrite)
        make_folder(target.parent)
        text = printable(self.card(), keep="\n")  # the path of a model may hold anything
        write_atomic(target, text.encode(), description="the model card")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bundle to a file, atomically.

        Parameters
        ----------
        path : path
            An existing file is replaced. Missing folders are created.

        Raises
        ------
        StoreWriteError
            If the write fails; an existing file is unchanged then.
        BundleError
            If a class is not a str, int, bool or float.
        """
        arguments = [_without_default_dtype(part.arguments) for part in self.parts]
        record = {
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "about": {name: str(value) for name, value in self.metadata.items()},
        }
        write_bundle(path, self.classifier, self.spec, arguments, record, self.card())

    def predict_proba(self, features: Features) -> NDArray[np.float64]:
        """Return the class probabilities of features.

        Parameters
        ----------
        features : Features
            n rows, with the steps of the training features or without; reads all of them.

        Returns
        -------
        ndarray (n, k), float64
            Rows sum to 1; columns in the order of `classes`.

        Raises
        ------
        InvalidRequest
            If these are no `Features`.
        BundleMismatch
            If the features are not of the bundle's key.
        """
        return self.classifier.predict_proba(np.asarray(self._transformed(features).X))

    def _transformed(self, features: Features) -> Features:
        """Return features after all steps of the bundle; raise `BundleMismatch` for others."""
        if not isinstance(features, Features):
            raise InvalidRequest(
                f"Probabilities are of features that extract() returned, not of a "
                f"{type(features).__name__}. Of a matrix of embeddings they are "
                "bundle.classifier.predict_proba(X); of photos, predict(photos).",
                received=type(features).__name__,
            )
        found = DerivedSpec.of(features.spec, features.X.shape[1])
        if len(found.parts) != len(self.parts):
            raise BundleMismatch(
                f"The features are of {features.origin}, but the bundle needs those of "
                f"{format_count(len(self.parts), 'backbone')}: {self!r}.",
                stored=self.spec,
                requested=features.spec,
            )
        for part, spec in zip(self.parts, found.parts, strict=True):
            part.check_spec(spec)
        if isinstance(self.spec, DerivedSpec) and found.widths != self.spec.widths:
            raise BundleMismatch(
                f"The features have {found.widths} values of each backbone, but the bundle says "
                f"{self.spec.widths}: it was changed after it was made.",
                received=found.widths,
            )
        done = len(found.steps)
        if found.steps != self.steps[:done]:
            raise BundleMismatch(
                f"The steps of the features ({features.origin}) are not those that the bundle was "
                f"trained on ({self!r}), or were fitted on other rows, so its predictions would be "
                "wrong. Pass features without steps: the bundle applies its own.",
                differing=["steps"],
                stored=self.spec,
                requested=features.spec,
            )
        for step in self.steps[done:]:
            features = features.with_step(step)
        return features

    def predict(
        self,
        photos: object,
        *,
        top: int = 3,
        tta: bool = False,
        backbone: BackboneLike | Sequence[BackboneLike | None] | None = None,
        **options: Any,
    ) -> list[Prediction]:
        """Predict the classes of photos.

        Their embeddings are stored, so that a second prediction does not compute them again.

        Parameters
        ----------
        photos : path, list of paths, or Dataset
            Any form of data that `featcache.extract` accepts. Labels are ignored, and photos
            of a folder are listed at any depth.
        top : int
            Number of classes per photo.
        tta : bool
            Test-time augmentation: average the probabilities of each photo and its mirror image.
        backbone : keras.Model or path of a .keras or .onnx file, optional
            Needed if the bundle was made with a model that is not in the table. The path in
            the bundle is never opened. Of a bundle of several backbones a list: one for each
            that needs one, in their order.
        **options
            Further arguments of `featcache.extract`, such as ``cache_dir`` or ``progress``.
            With ``views=2`` or more the probabilities of a photo's views are averaged.
            ``weights`` is needed if the bundle was made with weights in a file: their path in
            the bundle is never opened either; of several backbones a list, like `backbone`.

        Returns
        -------
        list of Prediction
            One per photo, in their order.

        Raises
        ------
        InvalidRequest
            If `top` is below 1, `tta` comes with other views, or an argument of `extract` is not
            accepted.
        BundleMismatch
            If a model or a weights file is needed and not passed, or if the arguments do not
            give features of the bundle's key. Nothing is extracted then.
        """
        from ..extraction.extract import extract

        if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
            raise InvalidRequest(f"top={top!r} must be a whole number from 1.", received=top)
        if tta:
            options = _with_mirror_images(options)
        dataset = _without_labels(photos, options)
        # They describe the photos, which are a data set from here on.
        options = {name: options[name] for name in options if name not in (*_COLUMNS, "labels")}
        asked = requests_of(self.parts, backbone, options)
        for part, (_, arguments, request) in zip(self.parts, asked, strict=True):
            cache = cache_folder(arguments.get("cache_dir"))
            part.check_spec(resolve(request, weights_folder(cache)).spec)
        try:
            features = join([extract(chosen, dataset, **own) for chosen, own in passes_of(asked)])
        except NoUsableImages as error:
            return [Prediction(bad.path, [], bad.reason) for bad in error.quarantined]
        return self._predictions(dataset, features, top)

    def _predictions(self, dataset: Dataset, features: Features, top: int) -> list[Prediction]:
        positions, image = np.unique(features.positions, return_inverse=True)
        proba = np.zeros((len(positions), len(self.classes)))
        np.add.at(proba, image, self.predict_proba(features))
        proba /= np.bincount(image)[:, None]
        found = {bad.position: Prediction(bad.path, [], bad.reason) for bad in features.quarantined}
        for position, row in zip(positions, proba, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            top_classes = [(self.classes[i], float(row[i])) for i in best]
            found[int(position)] = Prediction(dataset.paths[int(position)], top_classes)
        return [found[position] for position in range(len(dataset))]


def _with_mirror_images(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with the views of test-time augmentation; refuse other views."""
    views: dict[str, Any] = {"views": 2, "augmentation": "flip"}
    for name, value in views.items():
        if name in options and options[name] != value:
            raise InvalidRequest(
                f"tta=True averages a photo and its mirror image, but {name}={options[name]!r} "
                "asks for other views. Leave out one of the two.",
                received=options[name],
            )
    return {**options, **views}


def _without_labels(photos: Any, options: Mapping[str, Any]) -> Dataset:
    from ..datasets.load import load_dataset

    names = ("value_range", "cache_dir", *_COLUMNS)
    chosen = {name: options[name] for name in names if name in options}
    is_folder = isinstance(photos, (str, os.PathLike)) and absolute_path(photos).is_dir()
    if is_folder and not chosen.keys() & set(_COLUMNS):
        return images_below(photos)
    return replace(load_dataset(photos, **chosen), labels=None, split=None, categories=None)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle from a file. No code in the file is executed.

    Parameters
    ----------
    path : path
        A file that `Bundle.save` or a benchmark run wrote.

    Returns
    -------
    Bundle

    Raises
    ------
    BundleError
        If the file does not exist, is not a bundle, is damaged, or was written by a later
        version.
    """
    classifier, record = read_bundle(path)
    return Bundle(classifier, **record)


def _without_default_dtype(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `extract` as they were written before there was a choice of row_dtype."""
    default = ("row_dtype", DEFAULT_ROW_DTYPE)
    return {name: value for name, value in arguments.items() if (name, value) != default}
