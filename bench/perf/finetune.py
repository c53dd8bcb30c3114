"""Fine-tuning on stored outputs of the frozen part, compared with `fit` of Keras."""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from typing import Any

import numpy as np

from featcache import import_keras, load_backbone
from featcache.data.content_ids import content_ids
from featcache.datasets.load import load_dataset

from ..contenders.base import Training
from ..finetune.fine_tuned import FineTuned
from ..finetune.network import Top, build_network
from ..finetune.parts import training_parts
from ..splits import Images
from .extraction import draw_photos
from .timing import format_spread, markdown_table, median, run_in_subprocess, run_interleaved

# What is trained, and the number of photos; target: how many times quicker than Keras.
# At least 500 photos: with fewer than 50 held out, calibration trains on folds as well.
CASES = {
    "mobilenet_v2": ("block_16_project", 1200, 3.0),
    "xception": ("block14_sepconv1", 600, 2.0),
}
EPOCHS, VIEWS, BATCH_SIZE, LEARNING_RATE, SIDE = 10, 4, 32, 1e-4, 224


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the seconds of both ways, each from photos to a trained model in a new process."""
    records = []
    for backbone, (unfreeze, count, target) in CASES.items():
        count = max(500, round(count * options.scale) // 10 * 10)
        photos = draw_photos(options.folder, count)
        runs: dict[str, list[dict[str, Any]]] = {"Keras": [], "featcache": []}

        def seconds(
            way: str, arguments: Any = (backbone, unfreeze, photos), runs: Any = runs
        ) -> float:
            with tempfile.TemporaryDirectory(prefix="featcache-perf-") as cache:
                record = run_in_subprocess("-m", "bench.perf.finetune", way, *arguments, cache)
            runs[way].append(record)
            return float(record["seconds"])

        run_interleaved({way: functools.partial(seconds, way) for way in runs}, options.repeats)
        records.append({"backbone": backbone, "unfreeze": unfreeze, "photos": count,
                        "target": target, "runs": runs})  # fmt: skip
    return records


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        f"From photos (drawn dogs) to a trained model, each way in a process of its own: {EPOCHS} "
        f"epochs in batches of {BATCH_SIZE}, random weights, the same layers trained and frozen "
        f"batch normalisation. featcache: {VIEWS} views, their one pass through the frozen part "
        "included. Keras: `fit` with its augmentation layers on decoded images in memory.",
        "",
    ]
    rows: list[list[object]] = [
        ["backbone", "trained from", "photos", "way", "seconds", "of which before training",
         "times quicker", "target"]
    ]  # fmt: skip
    for record in records:
        base = median([run["seconds"] for run in record["runs"]["Keras"]])
        for way, runs in record["runs"].items():
            seconds = [run["seconds"] for run in runs]
            quicker = f"{base / median(seconds):.2f}"
            before = format_spread([run["before"] for run in runs])
            target = f">= {record['target']:g}" if way == "featcache" else ""
            rows.append([record["backbone"], record["unfreeze"], record["photos"], way,
                         format_spread(seconds), before, quicker, target])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])


def _images(folder: str) -> tuple[Images, Any, int]:
    dataset = load_dataset(folder)
    classes = dataset.classes or []
    codes = np.array([classes.index(label) for label in dataset.labels or []])
    return Images(tuple(dataset.paths), tuple(content_ids(dataset, None))), codes, len(classes)


def _featcache(backbone: str, unfreeze: str, folder: str, cache: str) -> dict[str, float]:
    started = time.perf_counter()
    images, codes, n_classes = _images(folder)
    contender = FineTuned(
        backbone, unfreeze, weights="random", image_size=SIDE, epochs=EPOCHS, views=VIEWS,
        batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, patience=EPOCHS, cache_dir=cache,
    )  # fmt: skip
    contender.prepare(images, progress=False)
    contender.train(Training(images, codes, n_classes, 0, False))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "before": seconds - contender._run.progress.history["seconds"][-1]}


def _keras(backbone: str, unfreeze: str, folder: str, cache: str) -> dict[str, float]:
    import tensorflow

    started = time.perf_counter()
    images, codes, n_classes = _images(folder)
    train, validation = training_parts(Training(images, codes, n_classes), 0.1)
    resolved = load_backbone(backbone, weights="random", image_size=SIDE, cache_dir=cache)
    network = build_network(resolved.keras_backbone, n_classes, unfreeze, Top((), 0.0), 0).full
    keras = import_keras()
    inputs = keras.Input((SIDE, SIDE, 3))
    x = inputs
    for layer in (
        keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.03),
        keras.layers.RandomTranslation(0.1, 0.1), keras.layers.RandomZoom(0.15),
        keras.layers.RandomBrightness(0.1), keras.layers.RandomContrast(0.1),
    ):  # fmt: skip
        x = layer(x)
    model = keras.Model(inputs, network(x))
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy",
                  metrics=["accuracy"])  # fmt: skip

    def read(path: Any, code: Any) -> Any:
        image = tensorflow.io.decode_jpeg(tensorflow.io.read_file(path), channels=3)
        return tensorflow.image.resize(image, (SIDE, SIDE)), code

    def dataset(rows: Any) -> Any:
        found = tensorflow.data.Dataset.from_tensor_slices(
            ([images.paths[i] for i in rows], codes[rows])
        )
        return found.map(read, num_parallel_calls=tensorflow.data.AUTOTUNE).cache()

    batches = dataset(train).shuffle(len(train)).batch(BATCH_SIZE).prefetch(2)
    before = time.perf_counter() - started
    model.fit(batches, validation_data=dataset(validation).batch(BATCH_SIZE), epochs=EPOCHS,
              verbose=0)  # fmt: skip
    return {"seconds": time.perf_counter() - started, "before": before}


if __name__ == "__main__":
    _way, *_arguments = sys.argv[1:]
    _run = _featcache if _way == "featcache" else _keras
    print(json.dumps(_run(*_arguments)))
