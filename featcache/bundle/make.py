"""Make a bundle from a trained head and the features that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..extraction.features import Features
from .bundle import Bundle
from .class_names import check_classes, name_classes
from .code_check import check_codes
from .estimators import to_classifier


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
        The training features: they determine the backbone, its weights, the preparation of
        photos, and the names of the classes.
    classifier : heads.Head, Classifier, or scikit-learn estimator or Pipeline
        Fitted on the labels or on ``features.y``. Codes are replaced by their labels, after
        a check that the predictions of some labelled rows agree with that.
        `featcache.bundle.estimators.to_classifier` lists the estimators that are supported.
    classes : sequence of str, int, bool or float, optional
        Labels in the order of the head's `classes_`. Default: its own labels, or the labels
        of its codes.
    metrics : mapping of str to float, optional
        For the model card, such as ``{"accuracy": 0.9}``.
    metadata : mapping of str to str, optional
        Further entries of the model card.

    Returns
    -------
    Bundle

    Raises
    ------
    InvalidRequest
        If the head was trained on embeddings of another width, a step of a pipeline cannot
        be stored, or `classes` are not distinct labels of one type, one per class; or if the
        head's own classes are neither labels of the features nor codes, may be both, or are
        codes in another order.

    Examples
    --------
    >>> import featcache, heads
    >>> features = featcache.extract("pocket")
    >>> head = heads.LogisticHead().fit(features.X, features.y)
    >>> make_bundle(features, head).classes == features.classes
    True
    """
    plain = to_classifier(classifier)
    if plain.width != features.X.shape[1]:
        raise InvalidRequest(
            f"The head was trained on embeddings of width {plain.width}; these have width "
            f"{features.X.shape[1]}. Pass the features that it was trained on.",
            received=plain.width,
        )
    if classes is not None:
        plain = replace(plain, classes=check_classes(classes, plain.classes))
    elif features.classes is not None:
        names = name_classes(plain.classes, features.classes)
        if names != list(plain.classes):
            check_codes(plain, features)
        plain = replace(plain, classes=names)
    return Bundle(plain, features.spec, features.arguments, metrics or {}, metadata or {})
