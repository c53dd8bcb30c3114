"""Images in arrays, pipelines, Parquet files and archives, compared with files in a folder."""

from __future__ import annotations

import argparse
import functools
import io
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featcache.extraction.extract import extract

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_interleaved

IMAGES = 2000
FILES = "files in a folder"


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record for each kind of source, with the seconds of its runs, which alternate."""
    count = max(50, round(IMAGES * options.scale) // 10 * 10)
    folder = draw_photos(options.folder, count)
    paths = sorted(folder.rglob("*.jpg"))
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as work:
        sources = _sources(folder, paths, Path(work))
        for source in sources.values():
            _seconds(source)  # loads Keras, the backbone and the library of the source
        runs = run_interleaved(
            {name: functools.partial(_seconds, source) for name, source in sources.items()},
            options.repeats,
        )
    return [{"source": name, "images": count, "seconds": runs[name]} for name in sources]


def _sources(folder: Path, paths: list[Path], work: Path) -> dict[str, Callable[[], Any]]:
    """Return a function for each kind of source; it returns the argument `data`."""
    import tensorflow
    from PIL import Image

    contents = [path.read_bytes() for path in paths]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in contents])
    archive = work / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in paths:
            file.write(path, path.relative_to(folder))

    def decode(path: Any) -> Any:
        return tensorflow.io.decode_jpeg(tensorflow.io.read_file(path), channels=3)

    def pipeline() -> Any:
        names = tensorflow.data.Dataset.from_tensor_slices([str(path) for path in paths])
        return names.map(decode, num_parallel_calls=tensorflow.data.AUTOTUNE).prefetch(2)

    return {
        FILES: lambda: folder,
        "zip archive": lambda: archive,
        "Parquet file": lambda: _parquet(contents, work / "photos.parquet"),
        "array of uint8": lambda: pixels,
        "tf.data pipeline that decodes JPEG": pipeline,
    }


def _parquet(contents: list[bytes], target: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    if not target.exists():
        table = pyarrow.table({"image": contents})
        pyarrow.parquet.write_table(table, target, row_group_size=100, compression="none")
    return target


def _seconds(source: Callable[[], Any]) -> float:
    """Return the seconds of an extraction into an empty cache."""
    data = source()
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as cache:
        started = time.perf_counter()
        extract("pocket", data, cache_dir=cache, progress=False)
        return time.perf_counter() - started


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "From images to rows on disk with `pocket`, so that reading and decoding take most of the "
        "time, in an empty cache: drawn dogs of 500 x 375 pixels, as JPEG but for the array. The "
        "seconds include the identification of the images, which reads them a first time.",
        "",
    ]
    base = next(median(record["seconds"]) for record in records if record["source"] == FILES)
    rows: list[list[object]] = [["images in", "images", "images/s", "relative to files"]]
    for record in records:
        rates = [record["images"] / seconds for seconds in record["seconds"]]
        ratio = base / median(record["seconds"])
        rows.append([record["source"], record["images"], format_spread(rates), f"{ratio:.2f}"])
    return "\n".join([*lines, *markdown_table(*rows)])
