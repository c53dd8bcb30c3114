"""`featcache extract` and `featcache explain`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from ..data.labels import ON_CONFLICT, OnConflict
from .options import Common, command, extraction

_SHOWN = 10


@command("extract")
@extraction
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option(
    "--on-conflict",
    type=click.Choice(ON_CONFLICT),
    default="warn",
    show_default=True,
    help="If one content has several labels.",
)
def extract(common: Common, dry_run: bool, on_conflict: OnConflict, **options: Any) -> int:
    """Compute embeddings that are not stored yet.

    Prints where all are, and which images could not be used.

    BACKBONE is a name from `featcache backbones`, or the model.keras of a network of your own.

    DATA is a folder of class folders, a folder of images, a CSV file with a column 'path', or
    the name of a fetched data set. Without it: FEATCACHE_DATA, or a small sample of drawn dogs.
    """
    from ..extraction.extract import extract as run

    if dry_run:
        return _explain(common, options)
    own = {name: options.pop(name) for name in ("batch_size", "engine")}
    own["on_conflict"] = on_conflict
    features = run(_backbone(options), options.pop("data"), **own, **_arguments(common, options))
    summary = features.summary
    if common.json:
        record = {
            **vars(summary),
            "folder": str(summary.folder),
            "stages": vars(summary.stages) if summary.stages is not None else None,
            "rows": len(features),
            "width": features.X.shape[1],
            "key": features.spec.key,
            "quarantined_images": [vars(q) for q in features.quarantined],
        }
        print(json.dumps(record, indent=2))
        return 0
    print(repr(features))
    if common.quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        print(summary)  # else the log has just shown it on the same terminal
    for bad in features.quarantined[:_SHOWN]:
        print(f"  quarantined: {bad.path!r} {bad.reason}")
    if len(features.quarantined) > _SHOWN:
        print(f"  ... and {len(features.quarantined) - _SHOWN} more (--json lists all)")
    return 0


@command("explain")
@extraction
def explain(common: Common, **options: Any) -> int:
    """Print what `extract` would do, and why.

    Nothing is computed.
    On a miss it names the component of the cache key in which the nearest store differs.
    """
    return _explain(common, options)


def _explain(common: Common, options: dict[str, Any]) -> int:
    from ..extraction.prepare import explain as run

    for name in ("batch_size", "engine"):  # these change no feature
        options.pop(name)
    explanation = run(_backbone(options), options.pop("data"), **_arguments(common, options))
    if common.json:
        record = {
            **vars(explanation),
            "folder": str(explanation.folder),
            "nearest": str(explanation.nearest) if explanation.nearest else None,
            "spec": explanation.spec.components(),
            "key": explanation.spec.key,
        }
        print(json.dumps(record, indent=2))
    else:
        print(explanation)
    return 0


def _backbone(options: dict[str, Any]) -> Any:
    """Return a name or path as it is; only a model in the old format is loaded at once."""
    from ..backbones.model_file import OLD_ENDINGS, load_model

    name, allow_h5 = options.pop("backbone"), options.pop("allow_h5")
    if not (allow_h5 and name.lower().endswith(OLD_ENDINGS)):
        return name
    return load_model(name, allow_h5=True)


def _arguments(common: Common, options: dict[str, Any]) -> dict[str, Any]:
    no_progress = options.pop("no_progress")
    return {
        **options,
        "cache_dir": common.cache_dir,
        "progress": common.progress(no_progress),
    }
