"""The benchmark script: `python -m bench --help`."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featcache import Dataset, load_dataset
from featcache.atomic import make_folder
from featcache.cachedir import cache_folder
from featcache.console import run_command
from featcache.datasets import drawn_dogs
from featcache.errors import InvalidRequest
from featcache.preparation import default_data, uses_sample
from featcache.specs import find_recipe
from heads import HEADS, make_head

from .contenders import CachedHead, Contender
from .evaluate import evaluate
from .finetune import PRESETS, FineTuned
from .report import save_summary, write_report
from .results import Results
from .splits import load_split, make_split
from .summary import summarise

_EXAMPLES = """\
examples:
  python -m bench --data photos/ --backbones resnet50,vgg19 --heads logistic,svm,lightgbm
  python -m bench --data photos/images.csv --backbones mobilenet_v2     a CSV with its own split
  python -m bench --backbones mobilenet_v2 --weights random             drawn dogs, no download
  python -m bench --data photos/ --finetune mobilenet_v2:0.3 --seeds 3 --report out/

A second run finds all features stored and takes seconds.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 2 an error, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    options.given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command("bench", lambda: _run(options), quiet=options.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare heads on frozen backbones: the same split, metrics and accounts.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", help="folder of class folders, or CSV; default: FEATCACHE_DATA or drawn dogs")
    add("--drawn", metavar="BREEDSxIMAGES", help="so many drawn dogs instead of --data, as 20x40")
    add("--backbones", default="mobilenet_v2", metavar="A,B", help="names, with commas between")
    add("--heads", default=",".join(HEADS), metavar="A,B", help="default: %(default)s")
    add("--weights", default="auto", help="auto, imagenet, random, random:SEED or a file")
    add("--image-size", type=int, metavar="PIXELS", help="default: each backbone's native size")
    add("--test-size", type=float, help="default: the data's own split, else 0.2")
    add("--split", metavar="FILE", help="use a split that an earlier run saved")
    add("--seed", type=int, default=0, help="the first seed (default 0)")
    add("--seeds", type=int, default=1, metavar="N", help="repeat with N seeds (default 1)")
    add(
        "--finetune",
        action="append",
        default=[],
        metavar="BACKBONE:PART",
        help="add a fine-tuned model, its last PART trained: a share (mobilenet_v2:0.3), a layer "
        "(resnet50:conv5_block2), a number of layers, or one of the presets "
        + ", ".join(PRESETS)
        + "; may be given several times",
    )
    add("--epochs", type=int, help="of fine-tuned models, at most")
    add("--report", metavar="DIR", help="write a report with pictures; results go there too")
    add("--out", default="results", metavar="DIR", help="where results go (default: results)")
    add("--batch-size", type=int, help="images a forward pass (default 32)")
    add("--cache-dir", help="default: FEATCACHE_CACHE or your cache folder")
    add("-q", "--quiet", action="store_true", help="only the table, warnings and errors")
    return parser


def _run(options: argparse.Namespace) -> int:
    dataset = _dataset(options)
    contenders = _contenders(options, is_sample=bool(options.drawn) or uses_sample(options.data))
    cache = {"cache_dir": options.cache_dir}
    out = Path(options.report or options.out)
    make_folder(out)  # before hours of work, not after
    progress = False if options.quiet else None
    runs: list[Results] = []
    for seed in range(options.seed, options.seed + max(1, options.seeds)):
        if options.split:
            split = load_split(options.split, dataset, **cache)
        else:
            split = make_split(dataset, options.test_size, seed, **cache)
        runs.append(evaluate(contenders, split, seed=seed, progress=progress))
        print(runs[-1])
    files = runs[0].save(out)
    summary = summarise(runs)
    save_summary(summary, out)
    computed = sum(int(r.facts.notes.get("computed_now", 0)) for run in runs for r in run)
    print(f"{computed} embeddings were computed now; results are in {files[0]} and {files[1]}.")
    if options.report:
        command = shlex.join(["python", "-m", "bench", *(options.given or [])])
        page = write_report(summary, out, contenders, command)
        print(f"The report is {page}: open it in a browser.")
    return 0


def _dataset(options: argparse.Namespace) -> Dataset:
    progress = False if options.quiet else None
    if options.drawn:
        match = re.fullmatch(r"(\d+)x(\d+)", options.drawn)
        if match is None or options.data:
            raise InvalidRequest(
                f"--drawn {options.drawn} must be two numbers such as 20x40, without --data.",
                received=options.drawn,
            )
        return drawn_dogs(int(match[1]), int(match[2]), progress=progress)
    if options.data:
        return load_dataset(options.data)
    return default_data(cache_folder(options.cache_dir), progress)


def _contenders(options: argparse.Namespace, *, is_sample: bool) -> dict[str, Contender]:
    backbones = [find_recipe(name.strip()).name for name in options.backbones.split(",")]
    names = [name.strip() for name in options.heads.split(",")]
    weights = "imagenet-or-random" if is_sample and options.weights == "auto" else options.weights
    shared: dict[str, Any] = {
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "cache_dir": options.cache_dir,
        "weights": weights,
    }
    contenders: dict[str, Contender] = {
        f"{backbone} + {name}": CachedHead(backbone, make_head(name), **shared)
        for backbone in backbones
        for name in names
        if name
    }
    for text in options.finetune:
        name = text if text in PRESETS else f"{text} fine-tuned"
        contenders[name] = _fine_tuned(text, options, weights)
    return contenders


def _fine_tuned(text: str, options: argparse.Namespace, weights: str) -> FineTuned:
    changes: dict[str, Any] = {"cache_dir": options.cache_dir, "weights": weights}
    if options.image_size:
        changes["image_size"] = options.image_size
    if options.epochs:
        changes["epochs"] = options.epochs
    if text in PRESETS:
        return FineTuned.preset(text, **changes)
    backbone, _, part = text.partition(":")
    unfreeze: float | int | str = part or 0.4
    for kind in (float, int):  # a whole number is a number of layers, 0.3 a share
        with contextlib.suppress(ValueError):
            unfreeze = kind(part)
    return FineTuned(find_recipe(backbone).name, unfreeze, **changes)


if __name__ == "__main__":
    sys.exit(main())
