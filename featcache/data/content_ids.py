"""The image ids of a data set."""

from __future__ import annotations

import os

from .._io.cache_dirs import cache_folder, index_folder
from .dataset import Dataset


def content_ids(dataset: Dataset, cache_dir: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the image id of each image of a data set: the SHA-256 of its bytes.

    Parameters
    ----------
    dataset : Dataset
    cache_dir : path-like, optional
        The cache folder with the file index. Default: see `featcache.toolkit.cache_folder`.

    Returns
    -------
    list of str
        64 hexadecimal digits each; "" for one that cannot be read.
    """
    if dataset.ids is not None:
        return list(dataset.ids)
    folder = index_folder(cache_folder(cache_dir))
    return [found.image_id or "" for found in dataset.source.identify(folder, 4)]
