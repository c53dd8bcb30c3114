"""One file from photo to breed: backbone by reference, head as arrays, labels, a model card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._io.cache_dirs import cache_folder, weights_folder
from .._io.wording import format_count, format_values
from ..backbones.model_file import is_model_file
from ..backbones.request import make_request
from ..backbones.resolve import asked_spec, resolve
from ..backbones.spec import BackboneSpec, differing
from ..backbones.weights import names_weights_file
from ..data.dataset import Dataset
from ..data.folder import images_below
from ..errors import BundleMismatch, InvalidRequest, NoUsableImages
from ..extraction.features import Features
from .bundle_file import read_bundle, write_bundle
from .class_names import check_classes
from .classifier import Classifier
from .code_check import check_codes
from .model_card import model_card

_OF_BACKBONE = ("layer", "pooling", "image_size", "resize", "weights", "precision")


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one photo.

    Attributes
    ----------
    path : str
    top_classes : list of (class, float)
        Classes, as the labels were given, with their probabilities, the most probable first;
        empty if the photo cannot be used.
    reason : str or None
        Why it cannot be used.
    """

    path: str
    top_classes: list[tuple[Any, float]]
    reason: str | None = None


@dataclass(frozen=True)
class Bundle:
    """A classifier of photos: which backbone, how photos are prepared, and the trained head.

    Attributes
    ----------
    classifier : Classifier
    spec : BackboneSpec
        Of the features that it was trained on; features of another key are refused.
    arguments : mapping of str to Any
        Arguments of `featcache.extract` that give such features.
    metrics : mapping of str to float
        What it reached, by name.
    metadata : mapping of str to str
        Further facts for the model card, such as the data set.
    """

    classifier: Classifier
    spec: BackboneSpec
    arguments: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> Sequence[Any]:
        """The labels as they were given, in the order of probabilities."""
        return self.classifier.classes

    @property
    def file_options(self) -> tuple[str, ...]:
        """Options of ``featcache predict`` for the file that the bundle was made with, if any."""
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
        """Return the model card, in Markdown."""
        return model_card(self.classifier, self.spec, self.arguments, self.metrics, self.metadata)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bundle to one file, all or nothing.

        Raises
        ------
        StoreWriteError
            If the disk refuses.
        """
        record = {
            "spec": self.spec.components(),
            "arguments": dict(self.arguments),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "about": {name: str(value) for name, value in self.metadata.items()},
        }
        write_bundle(path, self.classifier, record, self.card())

    def predict_proba(self, features: Features) -> Any:
        """Return class probabilities of stored features.

        Parameters
        ----------
        features : Features

        Returns
        -------
        ndarray (n, k), float64

        Raises
        ------
        BundleMismatch
            If the features are not of the bundle's key.
        """
        self._check_spec(features.spec)
        return self.classifier.predict_proba(np.asarray(features.X))

    def _check_spec(self, spec: BackboneSpec) -> None:
        changed = differing(_uncropped(self.spec), _uncropped(spec))
        if changed:
            raise BundleMismatch(
                f"The features (key {spec.key[:16]}) differ from those that the bundle "
                f"was trained on (key {self.spec.key[:16]}) in {', '.join(changed)}, so its "
                "answers would mean nothing. Extract them with the same weights and settings.",
                differing=changed,
                stored=self.spec,
                requested=spec,
            )

    def predict(
        self,
        photos: Any,
        *,
        top: int = 3,
        backbone: Any = None,
        **options: Any,
    ) -> list[Prediction]:
        """Say what photos show.

        Their embeddings are committed to the store, so that none is computed twice.

        Parameters
        ----------
        photos : path, list of paths, or Dataset
            Whatever `featcache.extract` takes; labels are ignored, and so is the layout of a
            folder.
        top : int
            How many classes for each.
        backbone : keras.Model or path of a .keras file, optional
            Needed if the bundle was made with a model that is not in the table. The path that
            the bundle itself names is never opened.
        **options
            Further arguments of `featcache.extract`, such as ``cache_dir`` or ``progress``.
            ``weights`` is needed if the bundle was made with weights in a file: a path that
            the bundle itself names is not opened either.

        Returns
        -------
        list of Prediction
            One for each photo, in their order.

        Raises
        ------
        BundleMismatch
            If a model or a file of weights is needed and not passed, or if the arguments do not
            give features of the bundle's key; then nothing is extracted.
        """
        from ..extraction.extract import extract

        if top < 1:
            raise InvalidRequest(f"top={top!r} must be at least 1.", received=top)
        dataset = _without_labels(photos)
        backbone, arguments = self._call(backbone, options)
        self._check_call(backbone, arguments)
        try:
            features = extract(backbone, dataset, **arguments)
        except NoUsableImages as error:
            return [Prediction(bad.path, [], bad.reason) for bad in error.quarantined]
        return self._tell(dataset, features, top)

    def _call(self, backbone: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return backbone and arguments for `extract`; refuse files that the bundle names.

        A bundle from elsewhere must not choose which files of this machine are opened.
        """
        # Of an own model, older bundles left the layer to a default that was its output.
        arguments = {**self.arguments, "layer": self.spec.layer, **options}
        name = arguments.pop("backbone")
        if backbone is not None:
            arguments.pop("weights", None)
            return backbone, arguments
        if self.spec.backbone.startswith("custom-") or is_model_file(name):
            raise BundleMismatch(
                f"The bundle was made with a model of its maker ({name}), which is not in it: pass "
                "that model, or its .keras file, as backbone= (--backbone).",
                received=name,
            )
        weights = arguments["weights"]
        if "weights" not in options and names_weights_file(weights):
            raise BundleMismatch(
                f"The bundle was made with weights in a file of its maker ({weights}), which is "
                "not in it: pass that file as weights= (--weights).",
                received=weights,
            )
        return name, arguments

    def _check_call(self, backbone: Any, arguments: Mapping[str, Any]) -> None:
        """Raise `BundleMismatch` before the work if `extract` would give other features."""
        asked = {name: arguments[name] for name in _OF_BACKBONE if name in arguments}
        request = make_request(backbone, preprocessing_rule=arguments["preprocessing"], **asked)
        self._check_spec(asked_spec(request, self.spec))
        cache = cache_folder(arguments.get("cache_dir"))
        self._check_spec(resolve(request, weights_folder(cache)).spec)

    def _tell(self, dataset: Dataset, features: Features, top: int) -> list[Prediction]:
        proba = self.predict_proba(features)
        told = {bad.position: Prediction(bad.path, [], bad.reason) for bad in features.quarantined}
        for position, row in zip(features.positions, proba, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            found = [(self.classes[i], float(row[i])) for i in best]
            told[int(position)] = Prediction(dataset.paths[int(position)], found)
        return [told[position] for position in range(len(dataset))]


def _without_labels(photos: Any) -> Dataset:
    from ..datasets.load import load_dataset

    if isinstance(photos, (str, os.PathLike)) and os.path.isdir(photos):
        return images_below(os.fspath(photos))
    return replace(load_dataset(photos), labels=None, split=None)


def make_bundle(
    features: Features,
    classifier: Any,
    *,
    classes: Sequence[Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Bundle:
    """Join a trained head to the features that it was trained on.

    Parameters
    ----------
    features : Features
        Tells backbone, weights, how photos are prepared, and the names of the classes.
    classifier : heads.Head, Classifier, or scikit-learn estimator or Pipeline
        Fitted on the labels or on ``features.y``: codes become the classes that they stand
        for, if the head's predictions for some labelled rows agree.
        `featcache.bundle.estimators.to_classifier` lists the estimators.
    classes : sequence of str, int, bool or float, optional
        Labels in the order of the head's own classes. Default: its classes, or what they
        stand for as codes.
    metrics, metadata : mapping, optional
        For the model card.

    Returns
    -------
    Bundle

    Raises
    ------
    InvalidRequest
        If the head is not for embeddings of this width, a step of a pipeline cannot be
        stored, or `classes` are not distinct labels of one type, one per class; or if the
        head's own classes are neither labels of the features nor codes, or may be both, or
        are codes of another order.
    """
    from .estimators import to_classifier

    plain = to_classifier(classifier)
    if plain.width != features.X.shape[1]:
        raise InvalidRequest(
            f"The head takes embeddings of width {plain.width}; these have {features.X.shape[1]}.",
            received=plain.width,
        )
    if classes is not None:
        plain = replace(plain, classes=check_classes(classes, plain.classes))
    elif features.classes is not None:
        names = _class_names(plain.classes, features.classes)
        if names != list(plain.classes):
            check_codes(plain, features)
        plain = replace(plain, classes=names)
    return Bundle(plain, features.spec, features.arguments, metrics or {}, metadata or {})


def _class_names(trained: Sequence[Any], classes: Sequence[Any]) -> list[Any]:
    """Return the labels of a head's classes, which may be codes: positions in `classes`.

    Labels that are integers themselves can be mistaken for codes; where both readings are
    possible and differ, a wrong one would name every prediction wrongly.
    """
    as_given = list(trained)
    if not all(type(label) is int for label in as_given):
        return _known(as_given, classes)
    if -1 in as_given and -1 not in classes:
        raise InvalidRequest(
            "The head was trained on a class -1, which is no label of the features; unlabelled "
            "rows are often coded so. Train on features[features.is_labelled].",
            received=as_given,
        )
    if not all(0 <= label < len(classes) for label in as_given):
        return _known(as_given, classes)
    named = [classes[code] for code in as_given]
    integers = {label for label in classes if not isinstance(label, (str, bool))}
    if named != as_given and integers.issuperset(as_given):
        raise InvalidRequest(
            f"The head's classes {as_given} can be labels or codes (positions in the features' "
            f"classes, here {named}). Pass the right ones as classes= to make_bundle.",
            received=as_given,
        )
    return named


def _known(trained: list[Any], classes: Sequence[Any]) -> list[Any]:
    """Return a head's labels; refuse those of a head that was trained on something else."""
    known = {(type(label), label) for label in classes}
    strange = [label for label in trained if (type(label), label) not in known]
    if strange:
        raise InvalidRequest(
            f"The head was trained on {format_values(strange)}, which "
            f"{'is' if len(strange) == 1 else 'are'} not among the features' classes "
            f"({format_values(classes)}). If these labels are meant, pass classes=, in the order "
            "of the head's own classes.",
            received=trained,
        )
    return trained


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle; nothing in the file is ever executed.

    Raises
    ------
    BundleError
        If it is not a bundle, is damaged, or was written by a later version.
    """
    classifier, record = read_bundle(path)
    return Bundle(classifier, **record)


def _uncropped(spec: BackboneSpec) -> BackboneSpec:
    """Leave out which part of a photo was taken: a new photo has no annotated box."""
    return replace(spec, resize="-".join(spec.resize.split("-")[-2:]))
