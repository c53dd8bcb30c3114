"""The data set of drawn dogs: any number of breeds and images from a seed."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from joblib import Parallel, delayed

from ..._io.atomic import make_folder, make_write_error, open_folder_atomic, remove_stale
from ..._io.cache_dirs import cache_folder, samples_folder
from ..._io.progress import progress_bar
from ...data.dataset import Dataset
from ...data.tables import from_csv
from ...errors import InvalidRequest
from .breeds import Breed, Scene, make_breeds, make_scene
from .drawing import draw

VERSION = 1
TABLE = "images.csv"
FACTORS = ("size", "light", "warmth", "fur_length", "facing", "background")
_QUALITY = 92


def drawn_dogs(
    n_breeds: int = 20,
    per_breed: int = 40,
    random_state: int = 0,
    image_size: int | tuple[int, int] = 256,
    *,
    folder: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool | None = None,
) -> Dataset:
    """Draw a data set of dogs, or return the one drawn before with the same arguments.

    Breeds differ in build, ears, muzzle, tail, coat, pattern and length of fur; images of a
    breed in pose, size, light and background.

    Parameters
    ----------
    n_breeds, per_breed : int
        Number of classes, and of images per class.
    random_state : int
        Seed. With more breeds or images the first ones stay the same.
    image_size : int or (int, int)
        Side, or height and width, in pixels; 32 to 2048.
    folder : path, optional
        Folder of the images. Default: a subfolder of the cache.
    workers : int, optional
        Number of processes. Default: 1 for fewer than 2,000 images, else one per core.

    Returns
    -------
    Dataset
        JPEG files, labelled by breed, with `size` (fraction of the width), `light`
        (brightness), `warmth`, `fur_length`, `facing` and `background` as attributes.

    Raises
    ------
    InvalidRequest
        If a number is out of range.
    StoreWriteError
        If the files cannot be written.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not (1 <= n_breeds <= 1500 and per_breed >= 1 and random_state >= 0):
        raise InvalidRequest(
            "drawn_dogs needs 1 to 1500 breeds, at least 1 image per breed and random_state from "
            f"0, not n_breeds={n_breeds}, per_breed={per_breed}, random_state={random_state}."
        )
    if not (32 <= height <= 2048 and 32 <= width <= 2048):
        raise InvalidRequest(f"image_size={image_size!r}: each side must be 32 to 2048 pixels.")
    name = f"drawn-dogs-v{VERSION}-{n_breeds}x{per_breed}-{height}x{width}-seed{random_state}"
    target = Path(folder) if folder is not None else samples_folder(cache_folder()) / name
    if not (target / TABLE).is_file():
        _write(target, n_breeds, per_breed, random_state, (height, width), workers, progress)
    dataset = from_csv(target / TABLE)
    return Dataset(
        dataset.paths, dataset.labels, dataset.split, dataset.root, "drawn dogs", dataset.attributes
    )


def sample(cache: Path, *, progress: bool | None = None) -> Dataset:
    """Return the sample that `featcache.extract` uses if no data set is passed.

    10 breeds with 20 images each, of 256 x 256 pixels.
    """
    folder = samples_folder(cache) / f"sample-v{VERSION}"
    return drawn_dogs(10, 20, random_state=0, folder=folder, progress=progress)


def _write(
    target: Path,
    n_breeds: int,
    per_breed: int,
    seed: int,
    size: tuple[int, int],
    workers: int | None,
    progress: bool | None,
) -> None:
    """Draw all images into a temporary folder and rename it, so that no partial set remains."""
    make_folder(target.parent)
    remove_stale(target.parent)
    breeds = make_breeds(n_breeds, seed)
    try:
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        with open_folder_atomic(target) as temporary:
            jobs: list[_Job] = []
            for b, breed in enumerate(breeds):
                folder = temporary / breed.name
                folder.mkdir()
                for p in range(per_breed):
                    scene = make_scene(breed, seed, b, p)
                    jobs.append((breed, scene, folder / f"{p:04d}.jpg", size))
            _draw_all(jobs, workers, progress)
            (temporary / TABLE).write_text(_table(jobs, temporary), "utf-8")
    except OSError as error:
        if not (target / TABLE).is_file():  # unless another process was faster
            raise make_write_error(error, target, "the drawn dogs") from error


_Job = tuple[Breed, Scene, Path, tuple[int, int]]


def _draw_all(jobs: list[_Job], workers: int | None, progress: bool | None) -> None:
    if workers is None:
        workers = 1 if len(jobs) < 2000 else (os.cpu_count() or 1)
    with progress_bar(len(jobs), "Drawing dogs", "images", progress) as bar:
        if workers == 1:
            for job in jobs:
                _draw_one(job)
                bar.update()
            return
        # Unlike those of multiprocessing, joblib's workers need no `if __name__ == "__main__"` in
        # the script of the caller.
        pool = Parallel(
            workers,
            batch_size=32,  # pyright: ignore[reportArgumentType]  # inferred from "auto"
            return_as="generator_unordered",
        )
        for _ in pool(delayed(_draw_one)(job) for job in jobs):
            bar.update()


def _draw_one(job: _Job) -> None:
    breed, scene, path, (height, width) = job
    draw(breed, scene, width, height).save(path, "JPEG", quality=_QUALITY)


def _table(jobs: list[_Job], root: Path) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "fur", "coat", "pattern", *FACTORS])
    for breed, scene, path, _ in jobs:
        factors = [getattr(scene, name) for name in FACTORS]
        shown = [f"{value:.4f}" if isinstance(value, float) else value for value in factors]
        writer.writerow(
            [
                path.relative_to(root).as_posix(),
                breed.name,
                breed.fur,
                breed.coat,
                breed.pattern,
                *shown,
            ]
        )
    return text.getvalue()
