"""`featcache extract` and `featcache explain`."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from ..data.labels import ON_CONFLICT, OnConflict
from ..errors import InvalidRequest
from .options import Common, DevicesOption, command, extraction

if TYPE_CHECKING:
    from ..extraction.features import Features
    from ..extraction.plan import Explanation
    from ..extraction.summary import ExtractionSummary

_MAX_SHOWN = 10

on_conflict = click.option(
    "--on-conflict",
    type=click.Choice(ON_CONFLICT),
    default="warn",
    show_default=True,
    help="What to do if images of identical content have different labels.",
)


@command("extract")
@extraction
@click.option(
    "--dry-run", is_flag=True, help="Print the plan, compute nothing (as `featcache explain`)."
)
@on_conflict
@click.option(
    "--scheduler",
    metavar="tcp://HOST:PORT",
    help="Let the workers of this Dask scheduler compute (`dask scheduler` prints its address). "
    "They must have the same version of featcache, and see the images and --cache-dir (a folder, "
    "or s3://bucket/prefix) under the same paths.",
)
@click.option(
    "--task-size", type=click.IntRange(1), metavar="N",
    help="Images per task of a cluster. Default: 2048, or down to 256 so that each thread of the "
    "workers has four tasks.",
)  # fmt: skip
@click.option(
    "--devices", type=DevicesOption(),
    help="Compute on several devices of this machine: auto (all GPUs), their number, or names, as "
    "in gpu:0,gpu:1 or cpu:0,cpu:1. Default: one.",
)  # fmt: skip
def extract(common: Common, dry_run: bool, on_conflict: OnConflict, **options: Any) -> int:
    """Compute the embeddings of images; those already stored are not computed again.

    Prints a summary: the numbers of images that were stored, computed and quarantined (could
    not be used), and the folder of the store. In Python, featcache.extract() with the same
    arguments returns the embeddings.

    BACKBONE is a name from `featcache backbones`, the file of a model of your own (.keras, or
    .onnx as other frameworks export it, which needs --preprocessing), or a preset of keras-hub,
    hub:NAME or hub:FOLDER.

    DATA is a folder of class folders, a folder of images, a CSV file with a column of
    paths (optional: label, split), a zip or tar archive or a Parquet file of images, or a data set
    of `featcache fetch`. Default: the folder in the environment variable FEATCACHE_DATA, or a
    small sample of drawn dogs.

    With --scheduler the workers of a Dask cluster compute, as docs/scale.md describes:
    `dask scheduler` on one machine, `dask worker tcp://HOST:8786` on each. Rows that were stored
    stay if a worker or the scheduler ends; the same command computes the others.
    """
    scheduler, task_size = options.pop("scheduler"), options.pop("task_size")
    devices = options.pop("devices")
    if dry_run:
        return _explain(common, options)
    if scheduler is None and task_size is not None:
        raise InvalidRequest(
            "--task-size is the size of the tasks of a cluster; name it with --scheduler.",
            received=task_size,
        )
    if scheduler is not None and devices is not None:  # before waiting for the scheduler
        raise InvalidRequest(
            "--devices chooses devices of this machine, and with --scheduler the workers of a "
            "cluster compute. Leave one of them out.",
            received=devices,
        )
    with _client(scheduler) as client:
        features = extracted(
            common, options, on_conflict, client=client, task_size=task_size, devices=devices
        )
    _print_features(common, features)
    return 0


def _print_features(common: Common, features: Features) -> None:
    """Print what an extraction found and computed."""
    summary = features.summary
    if common.json:
        record = {
            **_summary_record(summary),
            "rows": len(features),
            "width": features.X.shape[1],
            "key": features.spec.key,
            "quarantined_images": [vars(q) for q in features.quarantined],
        }
        print(json.dumps(record, indent=2))
        return
    print(repr(features))
    if common.quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        print(summary)  # otherwise the log has printed it on the same terminal
    for worker in summary.workers:
        print(f"  worker {worker}")
    for bad in features.quarantined[:_MAX_SHOWN]:
        print(f"  quarantined: {bad.path!r} {bad.reason}")
    if len(features.quarantined) > _MAX_SHOWN:
        print(f"  ... and {len(features.quarantined) - _MAX_SHOWN} more (--json lists all)")


def _client(scheduler: str | None) -> AbstractContextManager[object]:
    """Return a context manager with a client of a scheduler, or with None."""
    if scheduler is None:
        return nullcontext()
    from ..extraction.cluster.driver import connected

    return connected(scheduler)


@command("explain")
@extraction
def explain(common: Common, **options: Any) -> int:
    """Print what `extract` would do, without computing embeddings.

    Prints the numbers of images that are stored, to compute and quarantined, and the folder of
    the store. If no store fits, it names the settings in which the nearest store differs, such
    as the layer or the weights. The arguments are those of `extract`.
    """
    return _explain(common, options)


def _summary_record(summary: ExtractionSummary) -> dict[str, Any]:
    """Return a summary as JSON types; with those of its parts if there are several layers."""
    record = {
        **vars(summary),
        "folder": str(summary.folder),
        "stages": vars(summary.stages) if summary.stages is not None else None,
        "workers": [vars(worker) for worker in summary.workers],
    }
    parts = [_summary_record(part) for part in record.pop("parts")]
    return {**record, "parts": parts} if parts else record


def extracted(
    common: Common, options: dict[str, Any], on_conflict: OnConflict, **where: Any
) -> Features:
    """Return the features that the options of `extract` and `export` ask for."""
    from ..extraction.extract import extract as run

    own = {name: options.pop(name) for name in ("batch_size", "engine")}
    return run(
        chosen_backbone(options), options.pop("data"), on_conflict=on_conflict, **own,
        **where, **shared_arguments(common, options),
    )  # fmt: skip


def _explain(common: Common, options: dict[str, Any]) -> int:
    from ..extraction.prepare import explain as run

    for name in ("batch_size", "engine"):  # not part of the key
        options.pop(name)
    layers = options.pop("layer")
    backbone, data = chosen_backbone(options), options.pop("data")
    several = isinstance(layers, list)
    found = [
        run(backbone, data, layer=layer, **shared_arguments(common, options))
        for layer in (layers if several else [layers])
    ]
    if common.json:
        records = [_explanation_record(explanation) for explanation in found]
        print(json.dumps(records if several else records[0], indent=2))
    else:
        print(*found, sep="\n")
    return 0


def _explanation_record(explanation: Explanation) -> dict[str, Any]:
    return {
        **vars(explanation),
        "folder": str(explanation.folder),
        "nearest": str(explanation.nearest) if explanation.nearest else None,
        "spec": explanation.spec.components(),
        "key": explanation.spec.key,
    }


def chosen_backbone(options: dict[str, Any]) -> Any:
    """Return the name or path of the backbone; with --allow-h5, the loaded model."""
    from ..backbones.model_file import LEGACY_SUFFIXES, load_model

    name, allow_h5 = options.pop("backbone"), options.pop("allow_h5")
    if not (allow_h5 and name.lower().endswith(LEGACY_SUFFIXES)):
        return name
    return load_model(name, allow_h5=True)


def shared_arguments(common: Common, options: dict[str, Any]) -> dict[str, Any]:
    """Return options as arguments of `extract`, with those that all commands have."""
    return {
        **options,
        "cache_dir": common.cache_dir,
        "progress": common.progress,
    }
