"""Process that extracts a folder of images with one library, repeatedly, and prints the seconds.

Started by `bench.perf.extraction`. After a first run that does not count it prints ``ready``; for
each line on standard input it then repeats the extraction and prints its seconds.

A job returns the seconds to subtract from its time. After the last batch of `predict` the thread
that tunes tf.data may sleep until its next round, and `predict` waits for it. The first round is
after 10 ms and the interval doubles, so that a run of 5.2 s returns after 10.24 s.
"""

# The libraries compared are in an environment of their own.
# pyright: reportMissingImports=false

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # the other libraries' environment has no featcache
    from featcache.backbones.spec import Precision

Job = Callable[[], float | None]


def featcache_job(backbone: str, photos: Path, work: Path, precision: Precision) -> Job:
    """Return a job that extracts into an empty store, with the model converted before."""
    import featcache

    cache = work / "cache"

    def job() -> None:
        for name in ("stores", "files"):
            shutil.rmtree(cache / name, ignore_errors=True)
        featcache.extract(
            backbone, photos, weights="random", precision=precision, engine="openvino",
            cache_dir=cache, progress=False,
        )  # fmt: skip

    return job


def keras_job(backbone: str, photos: Path, work: Path) -> Job:
    """Return a job with Keras as its documentation shows: a data set, `predict`, and a file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import h5py
    import keras

    import featcache
    from featcache.backbones.spec import find_backbone

    entry = find_backbone(backbone)
    module = getattr(keras.applications, entry.module)
    resolved = featcache.load_backbone(backbone, weights="random", cache_dir=work / "cache")
    model = resolved.backbone.model
    size = (entry.image_size, entry.image_size)

    def job() -> float:
        images: Any = keras.utils.image_dataset_from_directory(
            photos,
            labels=None,  # pyright: ignore[reportArgumentType]  # inferred from "inferred"
            image_size=size,
            batch_size=32,
            shuffle=False,
            verbose=False,
        )
        images = images.map(module.preprocess_input).prefetch(2)
        ended: list[float] = []
        record_end = keras.callbacks.LambdaCallback(
            on_predict_end=lambda logs: ended.append(time.perf_counter())
        )
        rows = model.predict(images, verbose=0, callbacks=[record_end])
        sleeping = time.perf_counter() - ended[0]
        with h5py.File(work / "rows.h5", "w") as file:
            file.create_dataset("embeddings", data=rows)
            file.flush()
        with open(work / "rows.h5", "rb") as written:
            os.fsync(written.fileno())
        return sleeping

    return job


def thingsvision_job(photos: Path, work: Path) -> Job:
    """Return a job that extracts with a torchvision ResNet50 by thingsvision."""
    with contextlib.suppress(ImportError):
        # Both Triton and TensorFlow contain LLVM: Triton crashes if it is loaded second.
        import triton  # noqa: F401
    from thingsvision import get_extractor
    from thingsvision.utils.data import DataLoader, ImageDataset

    extractor = get_extractor("resnet50", source="torchvision", device="cpu", pretrained=False)

    def job() -> None:
        images = ImageDataset(
            root=str(photos), out_path=str(work), backend=extractor.get_backend(),
            transforms=extractor.get_transformations(),
        )  # fmt: skip
        loader = DataLoader(dataset=images, batch_size=32, backend=extractor.get_backend())
        rows = extractor.extract_features(
            batches=loader, module_name="avgpool", flatten_acts=True, output_type="ndarray"
        )
        np.save(work / "rows.npy", rows)

    return job


def embetter_job(photos: Path, work: Path) -> Job:
    """Return a job that extracts with a timm ResNet50 by embetter."""
    import timm

    create = timm.create_model
    # Random weights, which need no download and take the same time.
    timm.create_model = lambda name, **options: create(name, **{**options, "pretrained": False})
    from embetter.vision import ImageLoader, TimmEncoder

    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    load, encode = ImageLoader(), TimmEncoder("resnet50")

    def job() -> None:
        np.save(work / "rows.npy", np.asarray(encode.transform(load.transform(paths))))

    return job


def main(kind: str, backbone: str, photos: Path) -> None:
    """Run a job once, print ``ready``, and run it again for each line on standard input."""
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries must not be read as a result
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as folder:
        work = Path(folder)
        jobs: dict[str, Callable[[], Job]] = {
            "featcache float32": lambda: featcache_job(backbone, photos, work, "float32"),
            "featcache bfloat16": lambda: featcache_job(backbone, photos, work, "bfloat16"),
            "Keras": lambda: keras_job(backbone, photos, work),
            "thingsvision": lambda: thingsvision_job(photos, work),
            "embetter": lambda: embetter_job(photos, work),
        }
        job = jobs[kind]()
        job()  # compiles or converts the model, which does not count
        print("ready", file=results)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in sys.stdin:
                started = time.perf_counter()
                sleeping = job() or 0.0
                print(time.perf_counter() - started - sleeping, file=results)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
