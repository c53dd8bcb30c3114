"""The arguments `--backbones` and `--finetune`, and the options of all backbones."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from featcache.errors import InvalidRequest
from featcache.toolkit import (
    ENGINES,
    POOLINGS,
    PRECISIONS,
    RESIZES,
    ROW_DTYPES,
    RULES,
    as_rule,
    parse_image_size,
)
from heads import HEADS

from ..presets import PRESETS
from .backbones import BACKBONE_OPTIONS
from .entries import whole_number
from .finetune import FINETUNE_OPTIONS


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser whose errors argparse shows as they are."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except InvalidRequest as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse_argument


def add_backbone_options(parser: argparse.ArgumentParser) -> None:
    """Add `--backbones`, `--heads` and the options of all backbones."""
    add = parser.add_argument_group("backbones and heads").add_argument
    add(
        "--backbones",
        action="append",
        metavar="A,B",
        help="names from `featcache backbones`, .keras or .onnx files of your own, or presets of "
        "keras-hub, as hub:NAME or hub:FOLDER; default: "
        "mobilenet_v2, or pocket on drawn dogs. May be given several times; a value may be one "
        "backbone with options of its own: xception@image_size=224,weights=FILE. A+B puts "
        "the features of both side by side. Options: " + ", ".join(BACKBONE_OPTIONS),
    )
    add("--heads", metavar="A,B", help=f"default: {','.join(HEADS)}")
    options = parser.add_argument_group(
        "options of all backbones",
        "Options after the @ of a backbone take precedence. All but --precision, --row-dtype and "
        "--engine\napply to fine-tuned models too; --weights does not apply to models of your own.",
    )
    add = options.add_argument
    add("--layer", help="name or index of the layer whose output is the embedding; default: the "
        "one that feeds the classification layer")  # fmt: skip
    add("--pooling", choices=POOLINGS, help="of layers with spatial axes (default avg)")
    add(
        "--image-size",
        type=argument(parse_image_size),
        metavar="PIXELS",
        help="side, or height and width as 192x256; default: the native size of each backbone",
    )
    add("--resize", choices=RESIZES, help="ignore the aspect ratio (stretch, the default), crop "
        "the centre, or pad with black")  # fmt: skip
    add(
        "--weights",
        default="auto",
        help="auto (ImageNet), imagenet, random, random:SEED, or a weights file",
    )
    add("--preprocessing", type=argument(as_rule), metavar="RULE", help="for models of your own "
        f"that do not rescale their input: {', '.join(RULES)}, or a mean and standard deviation as "
        "mean:0.5:std:0.25; default: that of each backbone")  # fmt: skip
    add("--precision", choices=PRECISIONS, help="number format of the forward pass (default "
        "float32); bfloat16 is faster and less exact")  # fmt: skip
    add("--row-dtype", choices=ROW_DTYPES, help="number format of stored features (default "
        "float32); float16 takes half the disk")  # fmt: skip
    add("--engine", choices=ENGINES, help="what runs the backbones (default auto: OpenVINO if "
        "installed and without a GPU, else Keras or ONNX Runtime)")  # fmt: skip


def add_finetune_options(parser: argparse.ArgumentParser) -> None:
    """Add `--finetune` and the option of all fine-tuned models."""
    add = parser.add_argument_group("fine-tuned models").add_argument
    add(
        "--finetune",
        action="append",
        metavar="BACKBONE:PART",
        help="add a fine-tuned model; PART is what is trained: the last fraction of the weights "
        "(mobilenet_v2:0.3), all from a layer on (resnet50:conv5_block2), or the last N layers; or "
        "one of the presets " + ", ".join(PRESETS) + "; options follow an @: "
        "mobilenet_v2:0.3@epochs=10,lr_schedule=cosine; may be given several times. Options: "
        + ", ".join(FINETUNE_OPTIONS),
    )
    add(
        "--epochs",
        type=argument(whole_number(1)),
        metavar="N",
        help="maximum number of epochs of fine-tuned models",
    )
