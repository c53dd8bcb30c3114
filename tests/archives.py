"""Archives laid out as the published data sets are, filled with drawn dogs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from featcache.datasets.drawn.breeds import make_breeds, make_scene
from featcache.datasets.drawn.drawing import draw

BREEDS = ("n02085620-Chihuahua", "n02088094-Afghan_hound", "n02113799-standard_poodle")
SIZE = (60, 44)


def tar(path: Path, files: dict[str, bytes], kind: str = "w") -> Path:
    """Write an archive of plain files."""
    with tarfile.open(path, kind) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def picture(number: int, name: int) -> bytes:
    breed = make_breeds(3, seed=4)[number]
    out = io.BytesIO()
    draw(breed, make_scene(breed, 4, number, name), *SIZE).save(out, "JPEG")
    return out.getvalue()


def annotation(boxes: list[tuple[int, int, int, int]]) -> bytes:
    things = "".join(
        f"<object><name>dog</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    return f"<annotation>{size}{things}</annotation>".encode()


def mat(names: list[str]) -> bytes:
    cells = np.empty((len(names), 1), object)
    cells[:, 0] = names
    out = io.BytesIO()
    savemat(out, {"file_list": cells, "labels": np.ones((len(names), 1))})
    return out.getvalue()


def stanford_files(per_breed: int = 6) -> dict[str, dict[str, bytes]]:
    """The three archives' files; every photo whose number is 1 shows two dogs."""
    images, notes, lists = {}, {}, {"train": [], "test": []}  # type: ignore[var-annotated]
    for b, breed in enumerate(BREEDS):
        for i in range(per_breed):
            name = f"{breed}/{breed[:9]}_{i}"
            images[f"Images/{name}.jpg"] = picture(b, i)
            boxes = [(5, 4, 40, 40)] + ([(30, 10, 59, 43)] if i == 1 else [])
            notes[f"Annotation/{name}"] = annotation(boxes)
            lists["train" if i < 4 else "test"].append(f"{name}.jpg")
    tables = {f"{part}_list.mat": mat(names) for part, names in lists.items()}
    return {"images.tar": images, "annotation.tar": notes, "lists.tar": tables}


def write(folder: Path, archives: dict[str, dict[str, bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, files in archives.items():
        tar(folder / name, files, "w:gz" if name.endswith("gz") else "w")
    return folder


def pets_files(per_breed: int = 4) -> dict[str, dict[str, bytes]]:
    images: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    lines: dict[str, list[str]] = {"trainval": ["# a comment"], "test": []}
    for b, breed in enumerate(("Abyssinian", "american_bulldog")):
        for i in range(per_breed):
            name = f"{breed}_{i}"
            images[f"images/{name}.jpg"] = picture(b, i)
            trimap = np.full((SIZE[1], SIZE[0]), 2, np.uint8)
            trimap[10:30, 20:50] = 1
            trimap[9, 25] = 3
            out = io.BytesIO()
            Image.fromarray(trimap).save(out, "PNG")
            notes[f"annotations/trimaps/{name}.png"] = out.getvalue()
            lines["trainval" if i % 2 else "test"].append(f"{name} {b + 1} {b + 1} 1")
    images["images/Abyssinian_0.mat"] = b"a stray file, as in the published archive"
    for part, text in lines.items():
        notes[f"annotations/{part}.txt"] = "\n".join(text).encode()
    return {"images.tar.gz": images, "annotations.tar.gz": notes}
