"""Data sets from folders: images, classes and split by the layout."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from .._io.logs import get_logger
from .._io.paths import absolute_path
from .._io.wording import format_count, format_values
from ..errors import DatasetError
from ..images.formats import SUFFIXES, is_readable
from .dataset import Dataset
from .listing import Listing, list_images, other_files
from .sources import ImageSource

log = get_logger(__name__)

_CONTAINERS = (".zip", ".tar", ".parquet")
_PARTS = {"train": "train", "test": "test", "val": "validation", "dev": "validation"}
_SPLIT_NAME = re.compile(
    r"(train|test|val|dev)(?:ing|id|idation)?"
    r"[ _-]*(?:data ?set|set|data|images|imgs)?[ _-]*[0-9]*",
    re.IGNORECASE,
)
_LAYOUT = (
    "Expected train/<class>/..., and test/<class>/... or a flat test/ without labels. Sort the "
    "training images into one folder per class, or list all images in a CSV file with the "
    "columns path, label and split."
)


def split_of(name: str) -> str | None:
    """Return the part of a split that a folder name stands for; None for other names.

    Examples
    --------
    >>> [split_of(name) for name in ("Train", "valid", "test_set", "test1", "terrier")]
    ['train', 'validation', 'test', 'test', None]
    """
    match = _SPLIT_NAME.fullmatch(name.strip())
    return None if match is None else _PARTS[match[1].lower()]


def from_folder(path: str | Path) -> Dataset:
    """Return the data set of a folder with split folders, class folders or images.

    ``train/<class>/`` and ``test/<class>/`` give classes and split. Beside class folders in
    ``train/``, a ``test/`` or ``validation/`` that holds images directly, or whose folders are
    no training classes, such as ``test/images/``, is an unlabelled part. Other files are listed
    in `Dataset.ignored`. A file with an unknown ending, or none, is an image if it has the
    signature of one.

    Raises
    ------
    DatasetError
        If there is no image, images lie beside class folders, class folders lie one level too
        deep, or the layout of split folders leaves the classes unknown.
    """
    root = absolute_path(path)
    listing = _some_images(root)
    files, ignored = listing.images, listing.ignored
    below = len(os.path.join(str(root), ""))
    parts = [file[below:].split(os.sep) for file in files]
    return arrange(root, files, parts, ignored)


def arrange(
    root: Path,
    files: Sequence[str],
    parts: Sequence[list[str]],
    ignored: Sequence[str] = (),
    images: ImageSource | None = None,
) -> Dataset:
    """Return the data set of images with the layout of their folders; see `from_folder`.

    Parameters
    ----------
    root : Path
        The folder, or what has the images instead.
    files : sequence of str
        Names of the images.
    parts : sequence of list of str
        Folders and file name of each image, below `root`.
    ignored : sequence of str
        Files that are not images.
    images : ImageSource, optional
        What the images are read from, if not from files.
    """
    loose = [file for file, p in zip(files, parts, strict=True) if len(p) == 1]
    if len(loose) == len(files):
        return Dataset(files, root=str(root), name=root.name, ignored=ignored, images=images)
    if loose:
        raise DatasetError(
            f"{root} holds {format_count(len(loose), 'image')} beside class folders (the first is "
            f"{Path(loose[0]).name!r}), of unknown class. Move such images into a class folder "
            "or elsewhere, or list the images to use in a CSV file.",
            path=root,
            received=loose,
        )
    if _is_split(root, parts):
        labels = _labels(root, parts)
        split = [str(split_of(p[0])) for p in parts]
        return Dataset(files, labels, split, str(root), root.name, ignored=ignored, images=images)
    _report_nested_splits(root, parts)
    _check_depth(root, parts)
    labels = [p[0] for p in parts]
    return Dataset(files, labels, root=str(root), name=root.name, ignored=ignored, images=images)


def images_below(path: str | os.PathLike[str]) -> Dataset:
    """Return all images below a folder without labels, whatever its layout.

    Raises
    ------
    DatasetError
        If no image is found.
    """
    root = absolute_path(path)
    listing = _some_images(root)
    return Dataset(listing.images, root=str(root), name=root.name, ignored=listing.ignored)


def _some_images(root: Path) -> Listing:
    listing = list_images(str(root))
    if not listing.images:
        readable = sorted(filter(is_readable, SUFFIXES))
        shards = any(name.lower().endswith(_CONTAINERS) for name in listing.ignored)
        hint = " To read archives or Parquet files, pass their paths as a list." if shards else ""
        raise DatasetError(
            f"No image was found in {root} (looked for {', '.join(readable)}, also in "
            f"folders below).{other_files(listing.ignored)}{hint} Expected either images, "
            "or one folder per class with its images.",
            path=root,
            received=listing.ignored,
        )
    return listing


def _is_split(root: Path, parts: Sequence[list[str]]) -> bool:
    """Return whether the top folders are parts of a split; raise if that is ambiguous."""
    tops = {p[0] for p in parts}
    named = {top for top in tops if split_of(top)}
    if named == tops:
        return True
    deep = {p[0] for p in parts if len(p) > 2}
    # "train" alone may be a class of vehicles; "test" and "validation" are no classes.
    ambiguous = {top for top in named if split_of(top) != "train" or top in deep or len(named) > 1}
    if ambiguous:
        others = sorted(tops - named)
        raise DatasetError(
            f"{root} holds {', '.join(map(repr, sorted(ambiguous)))} beside "
            f"{', '.join(map(repr, others[:3]))}: a part of a split, or a class? {_LAYOUT}",
            received=sorted(ambiguous),
        )
    return False


def _labels(root: Path, parts: Sequence[list[str]]) -> list[str | None] | None:
    """Return the class of each image below split folders; None if there are no classes."""
    deep = {p[0] for p in parts if len(p) > 2}
    flat = {p[0] for p in parts if len(p) == 2}
    for top in sorted(flat & deep):
        raise DatasetError(
            f"{root / top} holds images beside class folders, so their class is unknown. {_LAYOUT}",
            received=top,
        )
    if any(split_of(top) == "train" for top in flat) or (not deep and len(flat) > 1):
        raise DatasetError(
            f"{root} holds the split folders {', '.join(map(repr, sorted(flat)))} without class "
            f"folders in them, so the classes are unknown. {_LAYOUT}",
            received=sorted(flat),
        )
    nested = sorted({p[1] for p in parts if len(p) > 3 and split_of(p[1])})
    if nested:
        raise DatasetError(
            f"{root} holds split folders within split folders, such as {nested[0]!r}; they would "
            f"become classes. {_LAYOUT}",
            received=nested,
        )
    if not deep:
        return None
    _check_depth(root, [p[1:] for p in parts if len(p) > 2], split=True)
    unlabelled = _unlabelled_tops(root, parts)
    return [p[1] if len(p) > 2 and p[0] not in unlabelled else None for p in parts]


def _unlabelled_tops(root: Path, parts: Sequence[list[str]]) -> set[str]:
    """Return the split folders whose folders are no training classes, such as ``test/images/``.

    Logs these, and classes without a training image.
    """
    folders: dict[str, set[str]] = {}
    for p in parts:
        if len(p) > 2:
            folders.setdefault(p[0], set()).add(p[1])
    trained = {name for top in folders if split_of(top) == "train" for name in folders[top]}
    unlabelled = {top for top in folders if trained and not folders[top] & trained}
    for top in sorted(unlabelled):
        if any(p[2] in trained for p in parts if p[0] == top and len(p) > 3):
            raise DatasetError(
                f"{root / top} holds its class folders one level too deep, below "
                f"{format_values(sorted(folders[top]))}. {_LAYOUT}",
                received=top,
            )
        log.warning(
            "%s: no folder in %r is a training class (it holds %s), so its images are "
            "unlabelled.", root, top, format_values(sorted(folders[top])),
        )  # fmt: skip
    labelled = set().union(*(folders[top] for top in folders.keys() - unlabelled))
    unseen = sorted(labelled - trained) if trained else []
    if unseen:
        log.warning(
            "%s: no training image of %s (classes without one: %d); they cannot be learnt.",
            root, format_values(unseen), len(unseen),
        )  # fmt: skip
    return unlabelled


def _report_nested_splits(root: Path, parts: Sequence[list[str]]) -> None:
    """Warn that folders such as train or test below class folders are not read as a split."""
    below = sorted({p[1] for p in parts if len(p) > 2 and split_of(p[1])})
    tops = {p[0] for p in parts}
    if below and len(tops) == 1:
        top = next(iter(tops))
        raise DatasetError(
            f"{root} holds one folder, {top!r}, with the split folders {', '.join(below)} in it; "
            f"it would be the only class. Pass {root / top} instead.",
            received=top,
        )
    if below:
        log.warning(
            "%s: the folders %s below class folders are not read as a split; their images are "
            "in no part. To use a split, list all images in a CSV file with the columns path, "
            "label and split.",
            root, ", ".join(below),
        )  # fmt: skip


def _check_depth(root: Path, parts: Sequence[list[str]], *, split: bool = False) -> None:
    """Raise `DatasetError` for class folders that lie one level deeper than expected.

    Parameters
    ----------
    root : Path
    parts : sequence of list of str
        Parts of the path of each image, relative to the folder where classes are expected.
    split : bool
        Whether that folder is a split folder.
    """
    tops = {p[0] for p in parts}
    holders = tops - {p[0] for p in parts if len(p) == 2}  # no image lies directly in them
    below = sorted({(p[0], p[1]) for p in parts if p[0] in holders})
    if len(tops) == 1 and holders:
        _refuse_one_folder(root, tops.pop(), [name for _, name in below], split)
    over: dict[str, list[str]] = {}
    for top, name in below:
        over.setdefault(name, []).append(top)
    shared = {n: of for n, of in sorted(over.items()) if len(of) > 1 and not split_of(n)}
    for name, of in shared.items():
        raise DatasetError(
            f"{root} holds folders of the same name in several others, such as {name!r} in "
            f"{format_values(of)}: which of them are the classes? Expected <class>/..., or "
            "train/<class>/... and test/<class>/..., with each class in one folder. Move the "
            "folders, or list all images in a CSV file with the columns path, label and split.",
            received=list(shared),
        )


def _refuse_one_folder(root: Path, top: str, below: Sequence[str], split: bool) -> None:
    what = f"If these are the classes, pass {root / top} instead"
    if split:
        what = f"Move them one level up, out of {top!r}, to train/<class>/... and test/<class>/..."
    raise DatasetError(
        f"{root} holds all images in one folder, {top!r}, which has only folders in it "
        f"({format_values(below)}), so that {top!r} would be the only class. {what}; or list all "
        "images in a CSV file with the columns path and label.",
        received=top,
    )
