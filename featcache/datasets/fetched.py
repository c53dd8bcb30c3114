"""Download, verification and unpacking of published data sets, and loading them."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from .._io.atomic import make_folder, make_write_error, open_folder_atomic, remove_stale
from .._io.cache_dirs import archives_folder, cache_folder, datasets_folder
from .._io.choices import check_choice
from .._io.disk_space import check_free_bytes
from .._io.download import retrieve
from .._io.hashes import file_hash
from .._io.logs import get_logger
from .._io.paths import absolute_path
from ..data.boxes import COLUMNS, Crop, cropped
from ..data.dataset import Dataset
from ..data.split import stratified_group_split
from ..data.tables import from_csv
from ..errors import DatasetError, DatasetNotFound, InvalidRequest, StoreWriteError
from .archives import unpack
from .oxford_pets import OXFORD_PETS
from .published import Archive, Example, Published
from .stanford_dogs import STANFORD_DOGS

log = get_logger(__name__)

NAMES = {published.name: published for published in (STANFORD_DOGS, OXFORD_PETS)}
TABLE = "examples.csv"
SplitRule = Literal["official", "90/10"]
SPLITS: tuple[SplitRule, ...] = get_args(SplitRule)


def fetch(
    name: str,
    *,
    source: str | os.PathLike[str] | None = None,
    any_hash: bool = False,
    keep_archives: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Path:
    """Download a published data set unless it is already in the cache.

    Parameters
    ----------
    name : {"stanford-dogs", "oxford-pets"}
    source : path-like or URL, optional
        A folder with the archives, or the URL of a mirror's folder. Default: the site of the
        data set.
    any_hash : bool
        Accept archives with other hashes than the published ones, such as a mirror's own
        archives. Their content is checked as well.
    keep_archives : bool
        Keep downloaded archives after unpacking.
    cache_dir : path-like, optional
        The cache folder.
    progress : bool, optional
        Show progress bars. Default: in a terminal and in a notebook.

    Returns
    -------
    Path
        The data set's folder. `featcache.load_dataset(name)` reads it.

    Raises
    ------
    InvalidRequest
        For an unknown name.
    DownloadFailed
        If an archive cannot be downloaded. The same call resumes the download.
    DatasetError, UnsafeArchive
        If an archive is damaged, is not the published one, or is not safe. Nothing is kept.
    StoreWriteError
        If the disk is full or refuses a write.
    """
    published = find(name)
    cache = cache_folder(cache_dir)
    target = datasets_folder(cache) / published.name
    if (target / TABLE).is_file():
        return target
    downloads = archives_folder(cache) / published.name
    for folder in (target.parent, downloads):
        make_folder(folder)
    remove_stale(target.parent)
    has_archives = source is not None and not _is_address(source)
    check_free_bytes(
        target.parent,
        published.size * (1 if has_archives else 2),  # the files, and the downloaded archives
        f"Until it is unpacked, {published.title} needs",
        "Free some space, or name another cache folder (--cache-dir or FEATCACHE_CACHE).",
    )
    archives = [_obtain(a, source, downloads, any_hash, progress) for a in published.archives]
    _build(published, archives, target, progress)
    if not keep_archives:
        shutil.rmtree(downloads, ignore_errors=True)
    return target


def load(
    name: str,
    *,
    crop: Crop | None = None,
    margin: float = 0.0,
    split: SplitRule | None = "official",
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Return a downloaded data set.

    Parameters
    ----------
    name : {"stanford-dogs", "oxford-pets"}
    crop : {"whole", "box"}, optional
        ``"box"``: each annotated box is an example, so that an image of two dogs has two; all
        examples of an image are in the same part of a split. Default: one example per image.
    margin : float
        Fraction of the box's width and height, 0 to 1, by which to widen it on each side.
    split : {"official", "90/10"} or None
        The published split, a random one with 10 % of the images for the test (seed 0), or none.
    cache_dir : path-like, optional
        The cache folder.

    Returns
    -------
    Dataset

    Raises
    ------
    DatasetNotFound
        If it has not been downloaded; the message says how to.
    InvalidRequest
        For an unknown value of an argument.
    """
    published = find(name)
    if split is not None:
        check_choice("split", split, SPLITS)
    table = datasets_folder(cache_folder(cache_dir)) / published.name / TABLE
    if not table.is_file():
        raise DatasetNotFound(
            f"{published.title} has not been downloaded: `featcache fetch {name}` downloads it "
            f"({published.size / 1e6:.0f} MB), or uses archives that you have: --from FOLDER.",
            received=name,
        )
    dataset = cropped(replace(from_csv(table), name=published.title), crop, margin)
    if dataset.boxes is None:
        dataset = _whole_photos(dataset)
    return dataset if split == "official" else replace(dataset, split=_other_split(dataset, split))


def find(name: str) -> Published:
    """Return the description of a published data set.

    Raises
    ------
    InvalidRequest
        For an unknown name; the message lists the known ones.
    """
    if name not in NAMES:
        raise InvalidRequest(
            f"There is no data set {name!r} to fetch; known: {', '.join(NAMES)}.", received=name
        )
    return NAMES[name]


def _whole_photos(dataset: Dataset) -> Dataset:
    first = {path: row for row, path in reversed(list(enumerate(dataset.paths)))}
    kept = dataset.take(sorted(first.values()))
    others = {k: v for k, v in kept.attributes.items() if k not in COLUMNS}
    return replace(kept, attributes=others)


def _other_split(dataset: Dataset, split: SplitRule | None) -> Sequence[str] | None:
    if split is None:
        return None
    _, test = stratified_group_split(dataset.paths, dataset.labels, 0.1, random_state=0)
    chosen = set(test.tolist())
    return ["test" if row in chosen else "train" for row in range(len(dataset))]


def _is_address(source: str | os.PathLike[str]) -> bool:
    return str(source).startswith(("http://", "https://"))


def _obtain(
    archive: Archive,
    source: str | os.PathLike[str] | None,
    downloads: Path,
    any_hash: bool,
    progress: bool | None,
) -> Path:
    known = None if any_hash else archive.hash
    if source is None or _is_address(source):
        url = archive.url if source is None else f"{str(source).rstrip('/')}/{archive.file}"
        return retrieve(url, known, archive.file, downloads, progress)
    path = absolute_path(source) / archive.file
    if not path.is_file():
        raise DatasetNotFound(
            f"There is no {archive.file} in {path.parent}; it is published at {archive.url}.",
            path=path,
        )
    kind, _, expected = archive.hash.partition(":")
    if known and file_hash(path, "md5" if kind == "md5" else "sha256") != expected:
        raise DatasetError(
            f"{path} is not the published archive: its hash is not {known}. The download "
            "may be incomplete: download it again. If it is an archive that a mirror has packed "
            "itself, pass --any-hash.",
            path=path,
            expected=known,
        )
    return path


def _build(published: Published, archives: list[Path], target: Path, progress: bool | None) -> None:
    """Unpack into a temporary folder, write the table and rename the folder, atomically."""
    try:
        with open_folder_atomic(target) as temporary:
            for archive in archives:
                unpack(
                    archive,
                    temporary,
                    wanted=lambda name: name.startswith(published.folders),
                    progress=progress,
                )
            log.info("%s: reading the annotations", published.title)
            table = _table(published.read(temporary))
            for entry in temporary.iterdir():
                if entry.name not in published.keep:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            (temporary / TABLE).write_text(table, "utf-8")
            if target.is_dir():  # left by something that was not us, and without a table
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except StoreWriteError:
        raise
    except FileExistsError as error:
        raise StoreWriteError(
            f"{target} is in the way: it is not a fetched data set. Move it elsewhere.", path=target
        ) from error
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        raise make_write_error(error, target, published.title) from error


def _table(examples: Iterable[Example]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(examples)
    more = list(rows[0].more) if rows else []
    writer.writerow(["path", "label", "split", *COLUMNS, *more])
    for row in rows:
        writer.writerow([row.path, row.label, row.split, *row.box, *row.more.values()])
    return text.getvalue()
