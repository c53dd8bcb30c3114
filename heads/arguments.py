"""Arguments of `Head.fit`, `Head.score` and `heads.search`: features or arrays, labelled rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets

from featcache.errors import InvalidRequest
from featcache.toolkit import first_line, format_count

from .groups import Codes, group_codes
from .unlabelled import labelled_mask, take_labelled

if TYPE_CHECKING:
    from featcache import Features


def as_features(X: Any) -> Features | None:
    """Return X if it is `featcache.Features`, else None."""
    from featcache import Features  # slow to import, and not needed for arrays

    return X if isinstance(X, Features) else None


def unpack_features(X: Any, y: Any, groups: Any) -> tuple[Any, Any, Any]:
    """Return embeddings, labels and groups; of features, their codes and image ids by default."""
    features = as_features(X)
    if features is None:
        return X, y, groups
    y = features.y if y is None else y
    return np.asarray(features.X), y, features.ids if groups is None else groups


def is_on_disk(X: Any) -> bool:
    """Return whether rows are read from disk when they are used: of a store, or `numpy.memmap`."""
    if isinstance(X, np.ndarray) or not hasattr(X, "__array__"):
        return isinstance(X, np.memmap) and X.ndim == 2
    from featcache.toolkit import LazyRows  # slow to import, and not needed for arrays

    return isinstance(X, LazyRows)


def check_lengths(X: Any, y: Any) -> None:
    """Raise `InvalidRequest` unless X has as many rows as y has labels."""
    try:
        check_consistent_length(X, y)
    except TypeError as error:
        raise InvalidRequest(
            f"X and y must be arrays with one entry per row: {first_line(error)}."
        ) from error
    except ValueError as error:
        rows, labels = format_count(len(X), "row"), format_count(len(y), "label")
        raise InvalidRequest(
            f"X has {rows}, but y has {labels}; give one label per row.", received=len(y)
        ) from error


def labelled_rows(
    name: str, X: Any, y: Any, sample_weight: Any, groups: Any = None
) -> tuple[Any, Any, Any, Codes | None]:
    """Return the labelled rows, their labels, weights and group numbers.

    Raises
    ------
    InvalidRequest
        If there are no labels, no row has one, or there is another number of groups. The message
        has the `name` of the head.
    """
    if y is None:
        raise InvalidRequest(
            f"{name} requires y to be passed, but the target y is None: give one "
            "label per row. The y of features of an unlabelled data set is None."
        )
    mask = labelled_mask(X, y)
    codes = None if groups is None else group_codes(groups, (np.shape(X) or (0,))[0])
    if mask is None:
        return X, y, sample_weight, codes
    if not mask.any():
        raise InvalidRequest(
            f"None of the {len(mask)} rows has a label: y holds only None or NaN. Give labels to "
            "at least some of the rows.",
            received=len(mask),
        )
    return *take_labelled(X, y, mask), _take(sample_weight, mask), _take(codes, mask)


def check_classes(y: NDArray[Any]) -> None:
    """Raise `InvalidRequest` unless each label is a class."""
    try:
        check_classification_targets(y)
        np.unique(y)
    except (TypeError, ValueError) as error:
        unsorted = "Labels of types that cannot be sorted together"
        # The second sentence of scikit-learn's message says what the next one says.
        reason = unsorted if isinstance(error, TypeError) else first_line(error).split(". ")[0]
        values = dict.fromkeys(map(repr, y.ravel().tolist()))
        shown = ", ".join(list(values)[:3])
        raise InvalidRequest(
            f"{reason}. A head predicts classes, but y holds {shown}, ...; "
            "give integers, strings or booleans as labels.",
            received=shown,
        ) from error


def check_codes(classes: NDArray[Any], trained_on: list[Any] | None, features: Features) -> None:
    """Raise `InvalidRequest` if the codes of features are not of the classes of a head.

    Equal codes of other data sets are other classes, and a head that was trained on labels
    predicts no codes: either accuracy would be meaningless.

    Parameters
    ----------
    classes : ndarray (k,)
        The classes of the head.
    trained_on : list or None
        Classes of the features whose codes it was trained on, if that is known.
    features : featcache.Features
    """
    if features.classes is None or (trained_on is not None and trained_on == features.classes):
        return
    are_codes = classes.dtype.kind in "iuf" and set(classes) <= set(range(len(features.classes)))
    if trained_on is None and are_codes:
        return
    received, expected = features.classes, trained_on or classes.tolist()
    raise InvalidRequest(
        f"The codes of these features are of the classes {_some(received)}, but the head was "
        f"trained on {_some(expected)}. Train it on labels and pass them here: "
        "score(features, features.labels).",
        received=received,
    )


def _some(classes: list[Any]) -> str:
    return ", ".join(map(repr, classes[:3])) + (", ..." if len(classes) > 3 else "")


def _take(values: Any, mask: NDArray[np.bool_]) -> Any:
    """Return the values of the labelled rows; values of another shape are checked later."""
    return values if np.shape(values) != mask.shape else np.asarray(values)[mask]
