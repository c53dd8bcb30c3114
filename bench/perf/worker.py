"""One way of turning a folder of photos into rows on disk, ready to be timed again and again.

Started by `bench.perf.extraction` in a process of its own. It gets ready, prints ``ready``,
and for each line on standard input does all the work again and prints the seconds.

A job may return seconds that are not to count. When `predict` has its last batch, the thread that
tunes tf.data may sleep on until its next round, and `predict` with it: rounds begin after 10 ms
and double, so that a run of 5.2 s returns after 10.24 s. That is no work, and left out.
"""

# The libraries that this project is timed against are not installed beside it.
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

if TYPE_CHECKING:  # other libraries are timed without featcache
    from featcache.backbones.spec import Precision

Job = Callable[[], float | None]


def featcache_job(backbone: str, photos: Path, work: Path, precision: Precision) -> Job:
    """Extract into an empty store; only the converted model is kept from run to run."""
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
    """Do what Keras' own documentation shows: a data set, `predict`, and a file."""
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
        at_the_end = keras.callbacks.LambdaCallback(
            on_predict_end=lambda logs: ended.append(time.perf_counter())
        )
        rows = model.predict(images, verbose=0, callbacks=[at_the_end])
        asleep = time.perf_counter() - ended[0]
        with h5py.File(work / "rows.h5", "w") as file:
            file.create_dataset("embeddings", data=rows)
            file.flush()
        with open(work / "rows.h5", "rb") as written:
            os.fsync(written.fileno())
        return asleep

    return job


def thingsvision_job(photos: Path, work: Path) -> Job:
    """Extract the features of a torchvision ResNet50 with thingsvision."""
    with contextlib.suppress(ImportError):
        # TensorFlow and Triton both bring LLVM; loaded after it, Triton crashes the process.
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
    """Extract the features of a timm ResNet50 with embetter."""
    import timm

    create = timm.create_model
    # No weights of a hub are asked for: the work is the same with random ones.
    timm.create_model = lambda name, **options: create(name, **{**options, "pretrained": False})
    from embetter.vision import ImageLoader, TimmEncoder

    paths = sorted(str(path) for path in photos.rglob("*.jpg"))
    load, encode = ImageLoader(), TimmEncoder("resnet50")

    def job() -> None:
        np.save(work / "rows.npy", np.asarray(encode.transform(load.transform(paths))))

    return job


def main(kind: str, backbone: str, photos: Path) -> None:
    """Get ready, then run as often as asked."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be read as an answer
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
        job()  # what is compiled or converted once is not what is compared
        print("ready", file=answers)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in sys.stdin:
                started = time.perf_counter()
                not_counted = job() or 0.0
                print(time.perf_counter() - started - not_counted, file=answers)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
