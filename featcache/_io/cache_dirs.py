"""Default folders of the cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from ..errors import InvalidRequest, StoreError
from .logs import get_logger
from .paths import absolute_path

log = get_logger(__name__)

CACHE_VARIABLE = "FEATCACHE_CACHE"
DATA_VARIABLE = "FEATCACHE_DATA"
SHARED_VARIABLE = "FEATCACHE_SHARED"
_URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+://")
_URL_WITH_ONE_SLASH = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/[^/]")


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of the cache folder, without creating it.

    Parameters
    ----------
    folder : path-like, optional
        Default: the environment variable ``FEATCACHE_CACHE``, else the user's cache folder of
        the operating system (`platformdirs.user_cache_dir`). A URL counts as none: of a cache in an
        object store, all but the stores is in the default folder.

    Returns
    -------
    Path
        Absolute, with ``~`` expanded.

    Raises
    ------
    InvalidRequest
        If it is a URL with one slash, as `pathlib.Path` writes it: rows would be stored in a folder
        of that name.
    """
    given = (folder, os.environ.get(CACHE_VARIABLE))
    chosen = [one for one in given if one and not _is_url(one)]
    found = os.fspath(chosen[0]) if chosen else platformdirs.user_cache_dir("featcache")
    if _URL_WITH_ONE_SLASH.match(found):
        raise InvalidRequest(
            f"The cache {found} is not a folder, and a URL has two slashes: give it as text, such "
            f"as 's3://bucket/prefix', or ./{found} for a folder of that name.",
            received=found,
        )
    return absolute_path(found)


def cache_url(folder: str | os.PathLike[str] | None = None) -> str | None:
    """Return the URL of the cache if its stores are in an object store.

    Parameters
    ----------
    folder : path-like or str, optional
        Default: the environment variable ``FEATCACHE_CACHE``.

    Returns
    -------
    str or None
        None for a folder.
    """
    chosen = folder or os.environ.get(CACHE_VARIABLE)
    return str(chosen) if _is_url(chosen) else None


def local_cache(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the cache folder, as `cache_folder` does, for work that a folder alone allows.

    Raises
    ------
    InvalidRequest
        If the cache is in an object store.
    """
    url = cache_url(folder)
    if url is not None:
        raise InvalidRequest(
            f"The cache {url.rpartition('@')[2]} is in an object store, and this works on a cache "
            "folder. Name one with cache_dir= (--cache-dir); `featcache push` and `featcache pull` "
            "copy rows between the two.",
            received=url.rpartition("@")[2],
        )
    return cache_folder(folder)


def _is_url(folder: object) -> bool:
    return isinstance(folder, str) and _URL.match(folder) is not None


def shared_folder(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the absolute path of the shared cache folder, which is only read.

    Parameters
    ----------
    folder : path-like, optional
        Default: the environment variable ``FEATCACHE_SHARED``.

    Returns
    -------
    Path or None
        None if there is none.

    Raises
    ------
    StoreError
        If it is not a folder: without it all that it holds would be computed again.
    """
    chosen = folder or os.environ.get(SHARED_VARIABLE)
    if not chosen:
        return None
    found = absolute_path(chosen)
    if not found.is_dir():
        raise StoreError(
            f"The shared cache {found} is not a folder. Mount its disk, or leave out shared_dir= "
            f"(--shared-dir, {SHARED_VARIABLE}).",
            path=found,
        )
    return found


def stores_folder(cache: Path) -> Path:
    """Return the folder of the stores."""
    return cache / "stores"


def index_folder(cache: Path) -> Path:
    """Return the folder of the file indexes."""
    return cache / "files"


def weights_folder(cache: Path) -> Path:
    """Return the folder of cached weight hashes."""
    return cache / "weights"


def engines_folder(cache: Path) -> Path:
    """Return the folder of converted models and measured batch sizes."""
    return cache / "engines"


def pixels_folder(cache: Path) -> Path:
    """Return the folder of decoded pixels, used by models that train on images.

    Parameters
    ----------
    cache : Path
        The cache folder, as `cache_folder` returns it.
    """
    return cache / "pixels"


def training_folder(cache: Path) -> Path:
    """Return the folder of checkpoints and trained models.

    Parameters
    ----------
    cache : Path
        The cache folder, as `cache_folder` returns it.
    """
    return cache / "training"


def samples_folder(cache: Path) -> Path:
    """Return the folder of generated images."""
    return cache / "samples"


def datasets_folder(cache: Path) -> Path:
    """Return the folder of downloaded data sets."""
    return cache / "datasets"


def archives_folder(cache: Path) -> Path:
    """Return the folder of downloaded archives, complete or partial."""
    return cache / "archives"


def spool_folder(cache: Path) -> Path:
    """Return the folder of temporary files with the images of streams, which have no names."""
    return cache / "spool"


def warn_if_shared(cache: Path) -> None:
    """Log a warning, once per folder, if other users can write to the cache.

    Parameters
    ----------
    cache : Path
        The cache folder. It is checked together with its subfolders of rows, cached hashes,
        converted models and trained models; missing folders are skipped.
    """
    parts = (stores_folder, index_folder, weights_folder, engines_folder, training_folder)
    for folder in (cache, *(part(cache) for part in parts)):
        reason = _writable_by_others(folder)
        if reason is not None and folder not in _WARNED:
            _WARNED.add(folder)
            log.warning(
                "%s: %s. Anyone who can write there can replace your stored rows and models. "
                "Unless you share it on purpose, run chmod go-w or choose another cache folder.",
                folder, reason,
            )  # fmt: skip


_WARNED: set[Path] = set()


def _writable_by_others(folder: Path) -> str | None:
    """Return why other users can write to a folder; None if they cannot or it is missing."""
    try:
        status = os.stat(folder)
        user = os.getuid()
    except (OSError, ValueError, AttributeError):  # Windows has no such permission bits
        return None
    if status.st_uid not in (user, 0):
        return "the folder belongs to another user"
    if status.st_mode & 0o002:
        return "every user can write to the folder"
    if status.st_mode & 0o020 and not _is_own_group(status.st_gid, user):
        return "a group of users can write to the folder"
    return None


def _is_own_group(group: int, user: int) -> bool:
    """Return whether a group is the user's private group, which many systems create."""
    import grp
    import pwd

    try:
        return grp.getgrgid(group).gr_name == pwd.getpwuid(user).pw_name
    except KeyError:  # a number without a name, as in containers
        return group == user
