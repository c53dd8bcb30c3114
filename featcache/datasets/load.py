"""Construction of a `Dataset` from folders, tables, lists and names of published data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..data.boxes import Crop
from ..data.dataset import Dataset
from ..data.load import LABELS_REASON, describe
from ..data.tables import COLUMNS_REASON, TableColumns
from ..errors import DatasetError


def load_dataset(
    data: object,
    labels: Iterable[object] | None = None,
    *,
    crop: Crop | None = None,
    margin: float = 0.0,
    value_range: tuple[float, float] | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Return a `Dataset` of images described by a folder, a table, a list, an array or a name.

    No image of a file is decoded.

    Parameters
    ----------
    data : Dataset, path-like, pandas.DataFrame, ndarray, list of paths or images, or pipeline
        A folder with one folder per class (also below ``train/``, ``test/`` ...), a folder of
        images, a CSV file or DataFrame with a column of paths and optionally ``label`` and
        ``split``, a list of paths, or the name of a data set that ``featcache fetch`` downloads,
        such as ``"stanford-dogs"``.

        Or images in memory: an array (n, h, w, 3) of RGB or (n, h, w, 1) of grey images, or a
        list of arrays (h, w, 3), PIL images and bytes of files. Of these, the image id is the
        hash of the pixels (of bytes: of the bytes, as for a file), so that they are found again
        in any order. Arrays are uint8, or floats in `value_range`, which are rounded to uint8.

        Or a pipeline: a ``tf.data.Dataset``, Keras' ``PyDataset``, PyTorch's ``Dataset`` or
        ``DataLoader``, or a generator, of images or of (image, label), also in batches. It is
        iterated here, once, and its images are kept in a temporary file of the cache folder
        for as long as the data set is used. Or a ``Dataset``, ``DatasetDict`` or
        ``IterableDataset`` of Hugging Face with a column of images, Parquet files with one, or
        archives of images, which are read in place.

        A ``test/`` or ``val/`` without class folders, or without a folder of a training class,
        is an unlabelled part. Labels and further columns of a CSV file become numbers or bools
        as in pandas, unless that would change the text: values with leading zeros stay text, and
        so do labels such as ``1.10`` and ``+1``. Names of folders stay text.
    labels : sequence, optional
        Labels for an array or a list: str, int, bool or float, or a pandas Categorical. None,
        NaN and blank strings mean unlabelled.
    crop : {"whole", "box"}, optional
        ``"box"`` uses the part of each image given by the columns ``left``, ``top``, ``right``
        and ``bottom``, in pixels. Default: whole images.
    margin : float
        Fraction of the box's width and height, 0 to 1, by which to widen it on each side.
    value_range : (float, float), optional
        The values of black and white in arrays of floats: ``(0, 1)``, ``(0, 255)`` or
        ``(-1, 1)``, for example.
    path_column : str, optional
        The column of a table that has the paths; relative ones start at the folder of the CSV
        file, or at the current folder. Default: ``path``, else the only column with a usual
        name such as ``filename``, ``image_path`` or ``image``, or ``id`` if its values are files.
    label_column : str, optional
        The column of a table that has the labels. Default: ``label``, if there is one.
    cache_dir : path-like, optional
        The cache folder with downloaded data sets, and with the images of a pipeline.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetNotFound
        If a path does not exist.
    DatasetError
        If there is no image, a table is malformed, or the layout of a folder is ambiguous.
    InvalidRequest
        For an invalid `crop`, `margin` or name of a column.
    """
    columns = TableColumns(path_column, label_column)
    if isinstance(data, str) and not os.path.exists(data):
        # Here, since archives and downloads take a while to import and files need none of it.
        from . import fetched

        if data in fetched.NAMES:
            if labels is not None:
                raise DatasetError(LABELS_REASON)
            if columns.given:
                raise DatasetError(COLUMNS_REASON)
            return fetched.load(data, crop=crop, margin=margin, cache_dir=cache_dir)
    return describe(
        data,
        labels,
        crop=crop,
        margin=margin,
        value_range=value_range,
        columns=columns,
        cache_dir=cache_dir,
    )
