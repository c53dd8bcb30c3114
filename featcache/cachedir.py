"""Where things are kept when nobody says."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "FEATCACHE_CACHE"
DATA_VARIABLE = "FEATCACHE_DATA"


def cache_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder: `given`, else ``FEATCACHE_CACHE``, else the user's own.

    Nothing is made on disk.
    """
    chosen = given or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("featcache")
    return Path(os.path.abspath(os.path.expanduser(os.fspath(chosen))))


def stores_folder(cache: Path) -> Path:
    """Return the folder of the stores."""
    return cache / "stores"


def index_folder(cache: Path) -> Path:
    """Return the folder of the file indexes."""
    return cache / "files"


def weights_folder(cache: Path) -> Path:
    """Return the folder of the remembered weight hashes."""
    return cache / "weights"


def engines_folder(cache: Path) -> Path:
    """Return the folder of converted models and of batch sizes that were measured."""
    return cache / "engines"


def pixels_folder(cache: Path) -> Path:
    """Return the folder of decoded pixels, for models that train from images."""
    return cache / "pixels"


def training_folder(cache: Path) -> Path:
    """Return the folder of checkpoints and trained models."""
    return cache / "training"


def samples_folder(cache: Path) -> Path:
    """Return the folder of generated images."""
    return cache / "samples"


def datasets_folder(cache: Path) -> Path:
    """Return the folder of fetched data sets."""
    return cache / "datasets"


def archives_folder(cache: Path) -> Path:
    """Return the folder of archives that are being downloaded."""
    return cache / "archives"
