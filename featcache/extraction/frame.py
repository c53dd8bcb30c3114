"""Features as a table of pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._io.wording import install_hint
from ..errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from .features import Features


def make_frame(features: Features, *, embeddings: bool) -> Any:
    """Return a pandas DataFrame of features; see `Features.to_frame`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra(
            f"to_frame() needs pandas: {install_hint('pandas')}.", package="pandas"
        ) from error
    columns: dict[str, Any] = {"path": features.paths, "id": features.ids}
    if features.views.any():
        columns["view"] = features.views
    if features.labels is not None:
        complete = features.is_labelled.all()  # else pandas would turn integers into floats
        dtype = pd.CategoricalDtype(features.classes) if features.categorical else None
        columns["label"] = pd.Series(features.labels, dtype=dtype if complete or dtype else object)
    if features.parts is not None:
        columns["split"] = features.parts
    if features.boxes is not None:
        columns["box"] = features.boxes
    names = [f"f{i}" for i in range(features.X.shape[1])] if embeddings else []
    taken = sorted(features.attributes.keys() & {*columns, *names})
    if taken:
        raise InvalidRequest(
            f"The data set has a column named {taken[0]!r}, as this table does: rename it.",
            received=taken,
        )
    # As objects: pyarrow, if it is installed, refuses paths that are not valid UTF-8.
    kept = object if _has_surrogates(features.paths) else None
    columns["path"] = pd.Series(features.paths, dtype=kept)
    frame = pd.DataFrame({**columns, **features.attributes})
    if embeddings:
        values = pd.DataFrame(np.asarray(features.X), columns=names)
        frame = pd.concat([frame, values], axis=1)
    return frame


def _has_surrogates(texts: Sequence[str]) -> bool:
    """Return whether a text stands for bytes that are not valid UTF-8, as names of files may."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return True
    return False
