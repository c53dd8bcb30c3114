"""Whatever describes images -> `Dataset`, names of fetched data sets included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..data.boxes import Crop
from ..data.dataset import Dataset
from ..data.load import describe
from ..errors import DatasetError
from . import fetched


def load_dataset(
    data: Any,
    labels: Sequence[Any] | None = None,
    *,
    crop: Crop | None = None,
    margin: float = 0.0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Make a `Dataset` of whatever describes images.

    Parameters
    ----------
    data : Dataset, path, list of paths, or pandas.DataFrame
        A folder of class folders (also below ``train/``, ``test/`` ...), a folder of
        images, a CSV file or DataFrame with a ``path`` column and, if there are any,
        ``label`` and ``split``, the paths themselves, or the name of a data set that
        ``featcache fetch`` brings, such as ``"stanford-dogs"``. A flat ``test/`` or
        ``val/`` beside class folders in ``train/``, or one without a folder of a training
        class, is an unlabelled part. Labels and further
        columns of a CSV file are numbers or bools where pandas would read such, but no
        number is changed: those with leading zeros stay text, and so do labels such as
        ``1.10`` and ``+1``. Names of folders stay text.
    labels : sequence, optional
        Labels for a list of paths: str, int, bool or float, or a pandas Categorical. None,
        NaN, "" and blanks mean unlabelled.
    crop : {"whole", "box"}, optional
        ``"box"``: the part of each photo that the columns ``left``, ``top``, ``right`` and
        ``bottom`` give. Default: whole photos.
    margin : float
        Widens each box by this fraction of its size, 0 to 1.
    cache_dir : path, optional
        Where fetched data sets are.

    Raises
    ------
    DatasetNotFound, DatasetError
        If there is nothing there, no image in it, or its layout has two meanings.
    """
    if isinstance(data, str) and not os.path.exists(data) and data in fetched.NAMES:
        if labels is not None:
            raise DatasetError("labels= goes with a list of paths; other data bring their own.")
        return fetched.load(data, crop=crop, margin=margin, cache_dir=cache_dir)
    return describe(data, labels, crop=crop, margin=margin)
