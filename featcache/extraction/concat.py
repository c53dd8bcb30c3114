"""`concat`: features of several backbones side by side, joined by example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.logs import get_logger
from .._io.wording import format_count, format_values
from ..errors import InvalidRequest, NoUsableImages
from .derived.rows import JoinedRows
from .derived.spec import DerivedSpec, arguments_of_parts, join_arguments
from .features import Features
from .summary import Quarantined, joined_summary

log = get_logger(__name__)

_Row = tuple[str, int]  # example id and view
_MAX_NAMED = 3


def concat(features: Sequence[Features]) -> Features:
    """Put the features of several backbones or layers side by side, joined by example.

    Rows are matched by example id and view, in the order of the first features, which also give
    labels, paths, columns and split. No embedding is read until the result's `X` is used. The
    result trains heads, is exported and becomes a bundle like any other features.

    Parameters
    ----------
    features : sequence of Features
        Of the same examples, each of another key. Those without labels take the labels of the
        first.

    Returns
    -------
    Features
        Examples that one of them lacks, because it could not use the image for example, are left
        out: the log warns of them, and `quarantined` lists them with the reason.

    Raises
    ------
    InvalidRequest
        If there are no features, two have the same key, or their classes or the labels of an
        example differ.
    NoUsableImages
        If no example is in all of them.

    Examples
    --------
    >>> import featcache
    >>> small = featcache.extract("pocket", image_size=32)
    >>> both = concat([featcache.extract("pocket"), small])
    >>> both
    <Features 200 x 512 of pocket/embedding + pocket/embedding, 10 classes>
    """
    return join(_checked(features))


def join(parts: Sequence[Features]) -> Features:
    """Put features side by side as `concat` does, also several of one key, as a bundle has them."""
    first = parts[0]
    if len(parts) == 1:
        return first
    rows = [_matches(first, other) for other in parts[1:]]
    kept = np.flatnonzero(np.all([found >= 0 for found in rows], axis=0))
    quarantined = _quarantined(parts, rows)
    if not len(kept):
        raise NoUsableImages(_nothing_in_common(parts, quarantined), quarantined=quarantined)
    if len(kept) < len(first) or len(quarantined) > len(first.quarantined):
        log.warning(
            "%s kept, of %s; quarantined lists the images that one of them lacks.",
            format_count(len(kept), "row"), _counts(parts),
        )  # fmt: skip
    chosen = first.take(kept)
    aligned = [chosen.X, *(o.X.take(found[kept]) for o, found in zip(parts[1:], rows, strict=True))]
    summary = joined_summary([part.summary for part in parts], quarantined)
    return replace(
        chosen,
        X=JoinedRows(aligned),
        spec=DerivedSpec.joined([DerivedSpec.of(p.spec, p.X.shape[1]) for p in parts]),
        summary=replace(summary, unlabelled=_count_unlabelled(chosen)),
        quarantined=quarantined,
        arguments=join_arguments([own for p in parts for own in arguments_of_parts(p.arguments)]),
    )


def _checked(features: Sequence[Features]) -> list[Features]:
    """Return the features as a list; raise `InvalidRequest` if they cannot be joined."""
    parts = list(features) if isinstance(features, (list, tuple)) else []
    if not parts or not all(isinstance(part, Features) for part in parts):
        raise InvalidRequest(
            "concat takes a list of features, as in concat([first, second]).",
            received=type(features).__name__,
        )
    repeated = [k for k, n in Counter(k for p in parts for k in _keys(p)).items() if n > 1]
    if repeated:
        twice = next(part.origin for part in parts if repeated[0] in _keys(part))
        raise InvalidRequest(
            f"Two of the features are of the same key ({twice}, {repeated[0][:16]}), so that each "
            "of their values would count twice; give each once.",
            received=repeated[0],
        )
    for part in parts[1:]:
        _check_classes(parts[0], part)
    return parts


def _keys(features: Features) -> list[str]:
    """Return the keys of the parts of joined features, or the key of others."""
    spec = features.spec
    if isinstance(spec, DerivedSpec) and not spec.steps:
        return [part.key for part in spec.parts]
    return [spec.key]


def _check_classes(first: Features, other: Features) -> None:
    if other.classes is None:
        return
    if first.classes is None:
        raise InvalidRequest(
            f"{other.origin} has labels and {first.origin}, the first, has none; put the features "
            "with labels first.",
            received=other.classes,
        )
    typed = [[(type(name), name) for name in part.classes or ()] for part in (first, other)]
    if typed[0] == typed[1]:
        return
    same = set(typed[0]) == set(typed[1])
    raise InvalidRequest(
        f"The classes of {first.origin} ({format_values(first.classes)}) and {other.origin} "
        f"({format_values(other.classes)}) "
        + ("have another order" if same else "differ")
        + ", so that their codes mean different labels; extract both from the same data.",
        received=other.classes,
    )


def _matches(first: Features, other: Features) -> NDArray[np.int64]:
    """Return the row of `other` for each row of `first`, -1 where it has none.

    Of several copies of an image, each has its own row, with the label of that copy.
    """
    table: dict[_Row, dict[Any, int]] = {}
    for position, (row, label) in enumerate(zip(_rows(other), _codes(other), strict=True)):
        table.setdefault(row, {}).setdefault(label, position)
    found = np.full(len(first), -1, np.int64)
    for position, (row, label) in enumerate(zip(_rows(first), _codes(first), strict=True)):
        copies = table.get(row)
        if copies is None:
            continue
        if other.y is not None and label not in copies:
            raise _differing_labels(first, other, position, next(iter(copies.values())))
        found[position] = copies[label] if label in copies else next(iter(copies.values()))
    return found


def _rows(features: Features) -> list[_Row]:
    return list(zip(features.example_ids, features.views.tolist(), strict=True))


def _codes(features: Features) -> list[float | None]:
    """Return the code of each row, None for an unlabelled one: NaN is not equal to itself."""
    if features.y is None:
        return [None] * len(features)
    return [None if np.isnan(code) else code for code in features.y.tolist()]


def _differing_labels(first: Features, other: Features, row: int, match: int) -> InvalidRequest:
    labels = [(part.labels or [])[i] for part, i in ((first, row), (other, match))]
    return InvalidRequest(
        f"{first.paths[row]!r} has the label {labels[0]!r} in {first.origin}, and {labels[1]!r} in "
        f"{other.origin}; extract both from the same data.",
        received=labels[1],
    )


def _quarantined(parts: Sequence[Features], rows: Sequence[NDArray[np.int64]]) -> list[Quarantined]:
    """Return the images that a part lacks, each once, in the order of the data set."""
    first, *others = parts
    listed = {(bad.path, bad.position): bad for part in parts for bad in part.quarantined}
    for other, found in zip(others, rows, strict=True):
        reason = f"has no row in {other.origin}"
        _list_rows(listed, first, np.flatnonzero(found < 0), reason)
        present = set(_rows(first))
        missing = [i for i, row in enumerate(_rows(other)) if row not in present]
        # With several boxes of a photo, its path does not say which one is meant.
        named = set() if first.boxes is not None else {bad.path for bad in first.quarantined}
        missing = [i for i in missing if other.paths[i] not in named]
        _list_rows(listed, other, missing, f"has no row in {first.origin}")
    return sorted(listed.values(), key=lambda bad: bad.position)


def _list_rows(
    listed: dict[tuple[str, int], Quarantined], features: Features, rows: Any, reason: str
) -> None:
    """Add the images of rows that are not listed yet."""
    labels = features.labels
    for row in rows:
        path, position = features.paths[row], int(features.positions[row])
        label = None if labels is None else labels[row]
        listed.setdefault((path, position), Quarantined(path, reason, position, label))


def _count_unlabelled(features: Features) -> int:
    return 0 if features.y is None else int((~features.is_labelled & (features.views == 0)).sum())


def _nothing_in_common(parts: Sequence[Features], quarantined: Sequence[Quarantined]) -> str:
    shown = "; ".join(f"{bad.path!r} {bad.reason}" for bad in quarantined[:_MAX_NAMED])
    return (
        f"No example is in all of {_counts(parts)}"
        + (f" ({shown})" if shown else "")
        + ". Extract them from the same images, with the same boxes and views."
    )


def _counts(parts: Sequence[Features]) -> str:
    return ", ".join(f"{format_count(len(part), 'row')} of {part.origin}" for part in parts)
