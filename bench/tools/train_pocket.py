"""Train the weights of `pocket`: `python -m bench.tools.train_pocket --help`.

The network learns to predict the traits of drawn breeds (`bench.tools.traits`) from images of many
breeds. Their seed is not that of the sample of drawn dogs, so none of its images is trained on, nor
any that `featcache.datasets.drawn_dogs` draws with another seed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featcache import import_keras
from featcache._io.atomic import write_atomic
from featcache._io.cache_dirs import cache_folder, training_folder
from featcache._io.console import run_command
from featcache.backbones import pocket
from featcache.backbones.spec import content_key
from featcache.data.content_ids import content_ids
from featcache.datasets import drawn_dogs
from featcache.datasets.drawn.breeds import make_breeds
from featcache.errors import InvalidRequest
from heads.schedule import Schedule

from ..finetune.pixels import decoded
from ..finetune.training import Run, plain, predict
from ..splits import Images
from . import traits

SEED = 7001
SIDE = 96
DRAWN_SIDE = 160
_SHIFT, _ZOOM, _BRIGHTNESS, _CONTRAST = 0.08, 0.12, 0.08, 0.1
_VERSION = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status."""
    options = _parser().parse_args(arguments)
    return run_command("train_pocket", lambda: _run(options), quiet=options.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tools.train_pocket",
        description="Train the backbone that is part of the package, on drawn breeds of dogs. "
        "An interrupted run resumes after its last epoch.",
    )
    add = parser.add_argument
    add("--breeds", type=int, default=1500, help="number of drawn breeds (default 1500)")
    add("--images", type=int, default=14, help="images per breed (default 14)")
    add("--epochs", type=int, default=16, help="maximum number of epochs (default 16)")
    add("--batch-size", type=int, default=64, help="images per training step (default 64)")
    add(
        "--seed",
        type=int,
        default=SEED,
        help=f"seed of the breeds and of training (default {SEED})",
    )
    add(
        "--out",
        default=str(pocket.FILE),
        help="weights file to write (default: that of the package)",
    )
    add("--cache-dir", help="default: FEATCACHE_CACHE or your cache folder")
    add("-q", "--quiet", action="store_true", help="print only warnings and errors")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.seed == 0:
        raise InvalidRequest(
            "--seed 0 draws the breeds of the sample, which must not be trained on. Use another "
            "seed.",
            received=0,
        )
    show = False if options.quiet else None
    dataset = drawn_dogs(options.breeds, options.images, options.seed, DRAWN_SIDE, progress=show)
    ids = content_ids(dataset, options.cache_dir)
    images = Images(tuple(dataset.paths), tuple(ids))
    pixels = decoded(images, (SIDE, SIDE), cache_dir=options.cache_dir, progress=show)
    targets = traits.targets(dataset.labels or [], make_breeds(options.breeds, options.seed))
    # Whole breeds are held out, to measure the accuracy on unseen breeds.
    breeds = {label: str(number % 16) for number, label in enumerate(dataset.classes or [])}
    held_out = np.array([breeds[label] == "0" for label in dataset.labels or []])
    train, validation = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    schedule = Schedule(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=1e-3,
        patience=6, lr_patience=2, factor=0.3,
    )  # fmt: skip
    body, model = _network(options.seed, schedule)
    run = _TraitsRun(model, _folder(options, ids), schedule, options.seed)
    run.train(
        lambda rows, epoch: pixels.take([ids[i] for i in rows]).astype(np.float32),
        targets, train, validation, show=show,
    )  # fmt: skip
    history = run.progress.history
    best = int(np.argmin(history["val_loss"]))
    out = Path(options.out)
    digest = _save(body, out)
    print(
        f"{out}: {out.stat().st_size:,} bytes, SHA-256 {digest}\n"
        f"{run.progress.epoch} epochs in {history['seconds'][-1]:.0f} s; in the best one "
        f"{100 * history['val_accuracy'][best]:.1f} % of the traits of {len(validation)} images of "
        "held-out breeds are predicted correctly."
    )
    return 0


class _TraitsRun(Run):
    """A run whose targets are traits instead of classes."""

    def _validate(self, read: Any, codes: Any, rows: Any) -> tuple[float, float]:
        predictions = predict(self.model, plain(read), rows, self.schedule.batch_size)
        return traits.loss_and_accuracy(codes[rows], predictions)


def _network(seed: int, schedule: Schedule) -> tuple[Any, Any]:
    """Return the backbone, and the compiled network around it that is trained."""
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    body = pocket.build(keras, (SIDE, SIDE))
    inputs = keras.Input((SIDE, SIDE, 3))
    x = inputs
    for layer in _augmentation(keras):
        x = layer(x)
    x = keras.layers.Rescaling(1 / 127.5, -1.0)(x)
    model = keras.Model(inputs, keras.layers.Dense(traits.WIDTH)(body(x)))
    model.compile(
        optimizer=keras.optimizers.Adam(schedule.learning_rate),
        loss=traits.keras_loss(keras),
        weighted_metrics=[traits.keras_accuracy(keras)],
    )
    return body, model


def _augmentation(keras: Any) -> list[Any]:
    """Return layers that change images at random, in training alone; pixels are 0 to 255."""
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(_SHIFT, _SHIFT),
        keras.layers.RandomZoom(_ZOOM),
        keras.layers.RandomBrightness(_BRIGHTNESS),
        keras.layers.RandomContrast(_CONTRAST),
    ]


def _folder(options: argparse.Namespace, ids: Sequence[str]) -> Path:
    """Return the folder of the run, named by all that determines its result."""
    key = content_key(
        {
            "version": _VERSION,
            "images": hashlib.sha256("".join(ids).encode()).hexdigest(),
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "seed": options.seed,
        }
    )
    return training_folder(cache_folder(options.cache_dir)) / f"pocket-{key[:16]}"


def _save(body: Any, out: Path) -> str:
    packed = io.BytesIO()
    np.savez(packed, **pocket.pack_weights(body))  # type: ignore[arg-type]
    write_atomic(out, packed.getvalue(), description="the weights of pocket")
    return hashlib.sha256(packed.getvalue()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
