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
from ..backbones.model_file import is_model_file
from ..backbones.request import BackboneOptions, Request, make_request
from ..backbones.resolve import apply_request, resolve
from ..backbones.spec import BackboneSpec, differing
from ..backbones.weights import names_weights_file
from ..data.dataset import Dataset
from ..data.folder import images_below
from ..errors import BundleMismatch, InvalidRequest, NoUsableImages
from ..extraction.derived.spec import DerivedSpec
from ..extraction.features import Features
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE
from ..images.resize_rule import WHOLE, format_resize, parse_resize
from ..printable import printable
from .bundle_file import read_bundle, write_bundle
from .classifier import Classifier
from .model_card import model_card
from .network_files import NetworkFiles

_BACKBONE_ARGUMENTS = (
    "layer", "pooling", "image_size", "resize", "weights", "precision", "row_dtype"
)  # fmt: skip


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
    """A classifier of photos: the spec of a backbone and a head trained on its embeddings.

    Attributes
    ----------
    classifier : Classifier
        The trained head.
    spec : BackboneSpec
        Spec of the training features; features of another key are refused.
    arguments : mapping of str to Any
        Arguments of `featcache.extract` that give features of that key.
    metrics : mapping of str to float
        Metrics for the model card, such as the accuracy on a test set, by name.
    metadata : mapping of str to str
        Further entries of the model card, such as the name of the data set.
    """

    classifier: Classifier
    spec: BackboneSpec
    arguments: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[Any]:
        """Labels in the order of the columns of `predict_proba`, of the type used in training."""
        return self.classifier.classes

    @property
    def file_options(self) -> tuple[str, ...]:
        """Options of ``featcache predict`` for the model or weights file, if one is needed."""
        if self.spec.is_imported:
            return ()
        for name, is_file in (("backbone", is_model_file), ("weights", names_weights_file)):
            if is_file(self.arguments[name]):
                return f"--{name}", str(self.arguments[name])
        return ()

    def __repr__(self) -> str:
        classes = format_count(len(self.classes), "class", "classes")
        return (
            f"<Bundle of {classes} on {self.arguments.get('backbone')}"
            f"/{self.spec.layer}, key {self.spec.key[:16]}>"
        )

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
        record = {
            "spec": self.spec.components(),
            "arguments": _without_default_dtype(self.arguments),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "about": {name: str(value) for name, value in self.metadata.items()},
        }
        write_bundle(path, self.classifier, record, self.card())

    def predict_proba(self, features: Features) -> NDArray[np.float64]:
        """Return the class probabilities of features.

        Parameters
        ----------
        features : Features
            n rows; reads all of them.

        Returns
        -------
        ndarray (n, k), float64
            Rows sum to 1; columns in the order of `classes`.

        Raises
        ------
        BundleMismatch
            If the features are not of the bundle's key.
        """
        if isinstance(features.spec, DerivedSpec):
            raise BundleMismatch(
                f"The features are of {features.origin}, and the bundle is of one backbone.",
                received=features.spec.key,
            )
        self.check_spec(features.spec)
        return self.classifier.predict_proba(np.asarray(features.X))

    def check_spec(self, spec: BackboneSpec) -> None:
        """Raise `BundleMismatch` unless features of a spec are of the bundle's key."""
        changed = differing(_uncropped(self.spec), _uncropped(spec))
        if changed:
            raise BundleMismatch(
                f"The features (key {spec.key[:16]}) differ from those that the bundle "
                f"was trained on (key {self.spec.key[:16]}) in {', '.join(changed)}, so its "
                "predictions would be wrong. Extract them with the same weights and settings.",
                differing=changed,
                stored=self.spec,
                requested=spec,
            )

    def predict(
        self,
        photos: object,
        *,
        top: int = 3,
        tta: bool = False,
        backbone: BackboneLike | None = None,
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
            the bundle is never opened.
        **options
            Further arguments of `featcache.extract`, such as ``cache_dir`` or ``progress``.
            With ``views=2`` or more the probabilities of a photo's views are averaged.
            ``weights`` is needed if the bundle was made with weights in a file: their path in
            the bundle is never opened either.

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

        if top < 1:
            raise InvalidRequest(f"top={top!r} must be at least 1.", received=top)
        if tta:
            options = _with_mirror_images(options)
        dataset = _without_labels(photos, options)
        chosen, arguments = self.extract_arguments(backbone, options)
        request = self.backbone_request(chosen, arguments)
        cache = cache_folder(arguments.get("cache_dir"))
        self.check_spec(resolve(request, weights_folder(cache)).spec)
        try:
            features = extract(chosen, dataset, **arguments)
        except NoUsableImages as error:
            return [Prediction(bad.path, [], bad.reason) for bad in error.quarantined]
        return self._predictions(dataset, features, top)

    def extract_arguments(
        self, backbone: Any, options: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Return backbone and arguments for `extract`; refuse paths that the bundle names.

        Otherwise a bundle from elsewhere could choose which files of this machine are opened.
        """
        if self.spec.is_imported:
            raise BundleMismatch(
                f"The bundle was made from imported embeddings ({self.spec.backbone}), which "
                "featcache cannot compute for other photos. Import those of the photos too, and "
                "pass the features to predict_proba().",
                received=self.spec.backbone,
            )
        # Older bundles of user-defined models do not name the layer; it was the output.
        arguments = {**self.arguments, "layer": self.spec.layer, **options}
        name = arguments.pop("backbone")
        if backbone is not None:
            arguments.pop("weights", None)
            return backbone, arguments
        if self.spec.is_own_model or is_model_file(name):
            raise BundleMismatch(
                f"The bundle was made with a user-defined model ({name}), which it does not "
                "contain: pass that model or preset, or its .keras or .onnx file, as backbone= "
                "(--backbone).",
                received=name,
            )
        weights = arguments["weights"]
        if "weights" not in options and names_weights_file(weights):
            raise BundleMismatch(
                f"The bundle was made with a weights file ({weights}), which it does not contain: "
                "pass that file as weights= (--weights).",
                received=weights,
            )
        return name, arguments

    def backbone_request(self, backbone: Any, arguments: Mapping[str, Any]) -> Request:
        """Return the request for the bundle's backbone, by arguments of `extract_arguments`.

        Raises
        ------
        BundleMismatch
            If it cannot give features of the bundle's key, whatever its weights are.
        """
        given = {name: arguments[name] for name in _BACKBONE_ARGUMENTS if name in arguments}
        options = BackboneOptions(preprocessing=arguments["preprocessing"], **given)
        request = make_request(backbone, options)
        self.check_spec(apply_request(request, self.spec))
        return request

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

    if isinstance(photos, (str, os.PathLike)) and absolute_path(photos).is_dir():
        return images_below(photos)
    chosen = {name: options[name] for name in ("value_range", "cache_dir") if name in options}
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


def _uncropped(spec: BackboneSpec) -> BackboneSpec:
    """Return a spec without its crop: new photos have no annotated box."""
    rule = parse_resize(spec.resize)
    if rule is None:
        return spec
    return replace(spec, resize=format_resize(replace(rule, crop=WHOLE)))
