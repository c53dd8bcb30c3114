"""Oxford-IIIT Pet: reader of its archives.

Parkhi, Vedaldi, Zisserman and Jawahar 2012, "Cats and dogs", CVPR.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .._io.names import is_name
from ..errors import DatasetError
from ..images.decode import load_image
from ..images.image_file import BadImage, Box
from .published import Archive, Example, Published, readable_name, side_fraction

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
_BACKGROUND = 2
_SPECIES = {"1": "cat", "2": "dog"}


def read(folder: Path) -> Iterator[Example]:
    """Yield one example per image; its box encloses the pet in the trimap.

    The published head boxes cover the training part only, so they are of no use here.

    Parameters
    ----------
    folder : Path
        With ``images/``, ``annotations/trainval.txt``, ``annotations/test.txt`` and
        ``annotations/trimaps/``.

    Raises
    ------
    DatasetError
        If a listed image or its trimap is missing or invalid.
    """
    for split, file in (("train", "trainval.txt"), ("test", "test.txt")):
        for name, species in _listed(folder / "annotations" / file):
            path = folder / "images" / f"{name}.jpg"
            if not path.is_file():
                raise DatasetError(
                    f"images/{name}.jpg is listed in {file}, but not in the archive of images, "
                    "which must be cut off or another one.",
                    path=path,
                )
            box, size = _pet(folder / "annotations" / "trimaps" / f"{name}.png")
            label = readable_name(name.rpartition("_")[0])
            more = {"species": species, "size": side_fraction(box, size)}
            yield Example(f"images/{name}.jpg", label, split, box, more)


def _listed(path: Path) -> list[tuple[str, str]]:
    """Read lines such as ``Abyssinian_100 1 1 1``: name, class, species, breed."""
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        found = [(line[0], _SPECIES[line[2]]) for line in lines if not line[0].startswith("#")]
    except (OSError, UnicodeDecodeError, LookupError) as error:
        raise DatasetError(
            f"{path.name} cannot be read as a list of photos ({error}); is it the right "
            "annotations.tar.gz?",
            path=path,
        ) from error
    odd = [name[:200] for name, _ in found if not is_name(name) or "_" not in name]
    if not found or odd or len({name for name, _ in found}) != len(found):
        raise DatasetError(f"{path.name} lists nothing, {odd[:1]}, or a photo twice.", path=path)
    return found


def _pet(path: Path) -> tuple[Box, tuple[int, int]]:
    try:
        trimap = np.asarray(load_image(path))[..., 0]
    except BadImage as bad:
        raise DatasetError(f"The trimap {path.name} {bad.reason}.", path=path) from bad
    pet = (trimap != _BACKGROUND) & (trimap > 0)
    across, down = np.flatnonzero(pet.any(axis=0)), np.flatnonzero(pet.any(axis=1))
    if not len(across):
        raise DatasetError(f"The trimap {path.name} shows no pet.", path=path)
    box = (int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1)
    return box, (trimap.shape[1], trimap.shape[0])


OXFORD_PETS = Published(
    name="oxford-pets",
    title="Oxford-IIIT Pet",
    archives=(
        Archive(_SITE + "images.tar.gz", "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c", 791_918_971),
        Archive(
            _SITE + "annotations.tar.gz",
            "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            19_173_078,
        ),
    ),
    folders=(
        "images/",
        "annotations/trimaps/",
        "annotations/trainval.txt",
        "annotations/test.txt",
    ),
    keep=("images",),
    read=read,
)
