"""The benchmark script: `python -m bench --help`."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from featcache import Dataset, FeatcacheError, load_dataset
from featcache.cachedir import cache_folder
from featcache.preparation import default_data, uses_sample
from featcache.specs import find_recipe
from heads import HEADS, make_head

from .contenders import CachedHead, Contender
from .evaluate import evaluate
from .splits import load_split, make_split

_EXAMPLES = """\
examples:
  python -m bench --data photos/ --backbones resnet50,vgg19 --heads logistic,svm,lightgbm
  python -m bench --data photos/images.csv --backbones mobilenet_v2     a CSV with its own split
  python -m bench --backbones mobilenet_v2 --weights random             drawn dogs, no download

A second run finds all features stored and takes seconds.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return its exit status: 0 done, 2 an error, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    level = logging.WARNING if options.quiet else logging.INFO
    logging.getLogger("featcache").setLevel(level)
    warnings.showwarning = lambda message, *_, **__: print(f"bench: {message}", file=sys.stderr)
    try:
        return _run(options)
    except FeatcacheError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare heads on frozen backbones: the same split, metrics and accounts.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", help="folder of class folders, or CSV; default: FEATCACHE_DATA or drawn dogs")
    add("--backbones", default="mobilenet_v2", metavar="A,B", help="names, with commas between")
    add("--heads", default=",".join(HEADS), metavar="A,B", help="default: %(default)s")
    add("--weights", default="auto", help="auto, imagenet, random, random:SEED or a file")
    add("--image-size", type=int, metavar="PIXELS", help="default: each backbone's native size")
    add("--test-size", type=float, help="default: the data's own split, else 0.2")
    add("--split", metavar="FILE", help="use a split that an earlier run saved")
    add("--seed", type=int, default=0, help="default 0")
    add("--out", default="results", metavar="DIR", help="where results go (default: results)")
    add("--batch-size", type=int, help="images a forward pass (default 32)")
    add("--cache-dir", help="default: FEATCACHE_CACHE or your cache folder")
    add("-q", "--quiet", action="store_true", help="only the table, warnings and errors")
    return parser


def _run(options: argparse.Namespace) -> int:
    dataset = _dataset(options)
    contenders = _contenders(options, is_sample=uses_sample(options.data))
    cache = {"cache_dir": options.cache_dir}
    if options.split:
        split = load_split(options.split, dataset, **cache)
    else:
        split = make_split(dataset, options.test_size, options.seed, **cache)
    progress = False if options.quiet else None
    results = evaluate(contenders, split, seed=options.seed, progress=progress)
    print(results)
    files = results.save(options.out)
    computed = sum(int(r.facts.notes.get("computed_now", 0)) for r in results)
    print(f"{computed} embeddings were computed now; results are in {files[0]} and {files[1]}.")
    return 0


def _dataset(options: argparse.Namespace) -> Dataset:
    if options.data:
        return load_dataset(options.data)
    return default_data(cache_folder(options.cache_dir), False if options.quiet else None)


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
    return {
        f"{backbone} + {name}": CachedHead(backbone, make_head(name), **shared)
        for backbone in backbones
        for name in names
    }


if __name__ == "__main__":
    sys.exit(main())
