"""Stanford Dogs: reader of its archives.

Khosla, Jayadevaprakash, Yao and Fei-Fei 2011, "Novel dataset for fine-grained image
categorization", First Workshop on Fine-Grained Visual Categorization, CVPR.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .._io.names import is_name
from ..errors import DatasetError
from .published import Archive, Example, Published, readable_name, side_fraction

_SITE = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
_MAX_XML_BYTES = 1 << 16
_MAX_LIST_BYTES = 2 * 2**20


def read(folder: Path) -> Iterator[Example]:
    """Yield one example per annotated box of each image.

    Parameters
    ----------
    folder : Path
        With ``Images/``, ``Annotation/`` and ``train_list.mat``, ``test_list.mat``.

    Raises
    ------
    DatasetError
        If a listed image or its annotation is missing or invalid.
    """
    for split in ("train", "test"):
        for name in sorted(_listed(folder / f"{split}_list.mat")):
            breed, photo = _parts(name)
            path = folder / "Images" / breed / photo
            annotation = folder / "Annotation" / breed / Path(photo).stem
            if not path.is_file():
                raise DatasetError(
                    f"Images/{name} is listed for {split}, but not in the archive of images, "
                    "which must be cut off or another one.",
                    path=path,
                )
            label = readable_name(breed.partition("-")[2])
            for box, size in _boxes(annotation):
                yield Example(
                    f"Images/{name}", label, split, box, {"size": side_fraction(box, size)}
                )


def _listed(path: Path) -> list[str]:
    """Read the file names of a list, which is a MATLAB file of version 5."""
    from scipy.io import loadmat

    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise ValueError("the file is too large")
        cells: Any = loadmat(str(path), variable_names=["file_list"])["file_list"]
        names = [str(cell.item()) for cell in cells.ravel()]
    except Exception as error:  # SciPy raises many kinds on damaged files
        raise DatasetError(
            f"{path.name} cannot be read as a list of files ({error}); is it the right lists.tar?",
            path=path,
        ) from error
    if not names or len(set(names)) != len(names):
        raise DatasetError(f"{path.name} lists no file, or one twice.", path=path)
    return names


def _parts(name: str) -> tuple[str, str]:
    """Split ``n02085620-Chihuahua/n02085620_10074.jpg``; raise for other names."""
    breed, slash, photo = name.partition("/")
    if not slash or not is_name(breed) or not is_name(photo) or "-" not in breed:
        raise DatasetError(f"The list names {name[:200]!r}; expected 'n...-breed/photo.jpg'.")
    return breed, photo


def _boxes(path: Path) -> list[tuple[tuple[int, int, int, int], tuple[int, int]]]:
    try:
        data = path.read_bytes()
        if len(data) > _MAX_XML_BYTES or b"<!" in data:
            # Entities are how a small XML file becomes a large one, or another one.
            raise ValueError("it is too long or defines entities")
        root = ElementTree.fromstring(data)
        size = (_number(root, "size/width"), _number(root, "size/height"))
        edges = ("xmin", "ymin", "xmax", "ymax")
        found: Sequence[tuple[int, ...]] = [
            tuple(_number(thing, f"bndbox/{edge}") for edge in edges)
            for thing in root.findall("object")
        ]
        boxes = [box for box in dict.fromkeys(found) if box[0] < box[2] and box[1] < box[3]]
        if not boxes:
            raise ValueError("it holds no box")
        return [((b[0], b[1], b[2], b[3]), size) for b in boxes]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise DatasetError(
            f"The annotation {path.parent.name}/{path.name} cannot be used: {error}.", path=path
        ) from error


def _number(thing: Any, name: str) -> int:
    text = thing.findtext(name)
    if text is None:
        raise ValueError(f"it has no {name}")
    return int(text)


STANFORD_DOGS = Published(
    name="stanford-dogs",
    title="Stanford Dogs",
    archives=(
        Archive(
            _SITE + "images.tar",
            "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            793_579_520,
        ),
        Archive(
            _SITE + "annotation.tar",
            "sha256:662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
            21_852_160,
        ),
        Archive(
            _SITE + "lists.tar",
            "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            481_280,
        ),
    ),
    # Everything else, such as the published features in some mirrors, stays packed.
    folders=("Images/", "Annotation/", "train_list.mat", "test_list.mat"),
    keep=("Images",),
    read=read,
)
