"""Where things are kept when nobody says."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import platformdirs

log = logging.getLogger("featcache")

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


def warn_if_shared(cache: Path) -> None:
    """Log a warning, once per folder, where other users can change what a run loads.

    Parameters
    ----------
    cache : Path
        The cache folder. It and the folders in it that hold rows, remembered hashes, converted
        and trained models are looked at; those that are not there are passed over.
    """
    parts = (stores_folder, index_folder, weights_folder, engines_folder, training_folder)
    for folder in (cache, *(part(cache) for part in parts)):
        reason = _writable_by_others(folder)
        if reason is not None and folder not in _WARNED:
            _WARNED.add(folder)
            log.warning(
                "%s: %s. Whoever can write there decides what is loaded as your rows and models. "
                "If you do not share it on purpose: chmod go-w, or choose another cache folder.",
                folder, reason,
            )  # fmt: skip


_WARNED: set[Path] = set()


def _writable_by_others(folder: Path) -> str | None:
    """Say why other users can write to a folder; None if they cannot, or it is not there."""
    try:
        status = os.stat(folder)
        user = os.getuid()
    except (OSError, ValueError, AttributeError):  # Windows keeps rights in another way
        return None
    if status.st_uid not in (user, 0):
        return "the folder belongs to another user"
    if status.st_mode & 0o002:
        return "every user can write to the folder"
    if status.st_mode & 0o020 and not _is_own_group(status.st_gid, user):
        return "a group of users can write to the folder"
    return None


def _is_own_group(group: int, user: int) -> bool:
    """Tell whether a group is the one that many systems make for each single user."""
    import grp
    import pwd

    try:
        return grp.getgrgid(group).gr_name == pwd.getpwuid(user).pw_name
    except KeyError:  # a number without a name, as in containers
        return group == user
