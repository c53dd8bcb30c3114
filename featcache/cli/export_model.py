"""`featcache export-model`: a bundle as a network for other programs."""

from __future__ import annotations

import json

import click

from ..bundle.network_formats import (
    NETWORK_FORMATS,
    NetworkFormat,
    network_format,
    write_network,
)
from .options import Common, command


@command("export-model")
@click.argument("bundle", type=click.Path())
@click.option("--out", required=True, metavar="PATH", help="The file or folder to write.")
@click.option(
    "--format",
    type=click.Choice(NETWORK_FORMATS),
    help="Default: by the ending of PATH. openvino: a folder.",
)
@click.option(
    "--backbone",
    metavar="MODEL",
    help="The .keras or .onnx file, if the bundle was made with a model of your own.",
)
@click.option(
    "--weights", metavar="FILE", help="The weights, if the bundle was made with a weights file."
)
@click.option("--overwrite", is_flag=True, help="Replace PATH if it exists.")
def export_model(
    common: Common,
    bundle: str,
    out: str,
    format: NetworkFormat | None,
    backbone: str | None,
    weights: str | None,
    overwrite: bool,
) -> int:
    """Write a trained classifier as a network for other programs.

    BUNDLE is a file that featcache.make_bundle(...).save() wrote, or the model.featcache of a
    benchmark run.

    PATH ends in .onnx (needs the extra onnx) or .tflite; with --format openvino it is a folder
    (needs the extra openvino). The network takes RGB pixels of uint8, of the size of the backbone,
    and gives the probability of each class. How photos are decoded and resized for it is in
    docs/serving.md.
    """
    from ..bundle.bundle import load_bundle
    from ..bundle.network_source import file_metadata

    chosen = network_format(out, format)
    model = load_bundle(bundle)
    write_network(model, out, chosen, backbone=backbone, weights=weights, overwrite=overwrite)
    height, width = model.parts[0].spec.image_size
    if common.json:
        record = {"path": out, "format": chosen, "image_size": [height, width],
                  "resize": file_metadata(model)["resize"],
                  "classes": list(model.classes)}  # fmt: skip
        print(json.dumps(record, indent=2))
        return 0
    print(
        f"{out}: {chosen}, images of {height} x {width} pixels to {len(model.classes)} "
        "probabilities"
    )
    return 0
