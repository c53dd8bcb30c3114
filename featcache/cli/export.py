"""`featcache export`: the embeddings of images as a file for other tools."""

from __future__ import annotations

import json
from typing import Any

import click

from .._io.wording import format_count
from ..data.labels import OnConflict
from ..export.export import EXPORT_FORMATS, check_target, export_format
from .extraction import extracted, on_conflict
from .options import Common, command, extraction


@command("export")
@extraction
@click.option("--out", required=True, metavar="FILE", help="The file to write.")
@click.option(
    "--format",
    type=click.Choice(EXPORT_FORMATS),
    help="Default: by the ending of FILE. hf: a folder for datasets.load_from_disk.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@on_conflict
def export(
    common: Common,
    out: str,
    format: str | None,
    overwrite: bool,
    on_conflict: OnConflict,
    **options: Any,
) -> int:
    """Write embeddings with ids, paths, labels and columns to a file for other tools.

    Arguments and options are those of `extract`, which computes what is not stored yet.

    FILE ends in .npy (the matrix; ids, paths and labels are in a .rows.csv beside it), .npz
    (arrays X, y, classes, ids, paths), .parquet (needs the extra parquet) or .csv. With --format
    hf it is a folder of a Hugging Face data set (needs the extra datasets).
    """
    chosen = export_format(out, format)
    check_target(out, chosen, overwrite=overwrite)  # before anything is computed
    features = extracted(common, options, on_conflict)
    files = features.export(out, chosen, overwrite=overwrite)
    if common.json:
        record = {
            "files": [str(file) for file in files],
            "rows": len(features),
            "width": features.X.shape[1],
            "key": features.spec.key,
            "quarantined_images": [vars(bad) for bad in features.quarantined],
        }
        print(json.dumps(record, indent=2))
        return 0
    rows = format_count(len(features), "row")
    print(f"{rows} x {features.X.shape[1]:,}: {', '.join(map(str, files))}")
    for bad in features.quarantined:
        print(f"  left out: {bad.path!r} {bad.reason}")
    return 0
