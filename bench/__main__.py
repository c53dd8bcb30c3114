"""The benchmark as a command: `python -m bench`, or `featcache bench`."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featcache import Dataset
from featcache.datasets import drawn_dogs
from featcache.errors import InvalidRequest
from featcache.toolkit import (
    CROPS,
    MAX_VIEWS,
    Source,
    cache_folder,
    format_count,
    is_model_file,
    make_folder,
    parse_augmentation,
    run_command,
    uses_sample,
)
from heads import HEADS, make_head

from .analysis.earlier import describe_differences, read_earlier_run
from .analysis.summary import summarise
from .command.arguments import add_backbone_options, add_finetune_options, argument
from .command.backbones import (
    BACKBONE_OPTIONS,
    BackboneChoice,
    SharedOptions,
    check_layer,
    parse_backbones,
)
from .command.entries import whole_number
from .command.finetune import parse_all_fine_tuned
from .contenders.base import Contender
from .contenders.cached_head import CachedHead
from .contenders.colour_histogram import ColourHistogram
from .contenders.frozen_backbone import FrozenBackbone
from .estimate import describe, estimates
from .evaluation.evaluate import evaluate
from .evaluation.few_shot import COUNTS
from .evaluation.results import Results
from .presets import COMPARISONS, Comparison, find_preset
from .report.report import save_summary, write_report
from .splits import Split, load_split, make_split

_WORTH_ESTIMATING = 100  # images
_ALL_STORED = "No embedding was computed: all were stored"
_EXAMPLES = """\
examples:
  %(prog)s --data photos/ --backbones resnet50,vgg19 --heads logistic,svm,lightgbm
  %(prog)s --data photos/images.csv --backbones mobilenet_v2     a CSV with its own split
  %(prog)s --backbones mobilenet_v2 --weights random             drawn dogs, no download
  %(prog)s --data photos/ --backbones resnet50 --backbones xception@image_size=224,pooling=max
  %(prog)s --data photos/ --backbones mine.keras@preprocessing=tf     a model of your own
  %(prog)s --data photos/ --finetune mobilenet_v2:0.3 --seeds 3 --report out/
  %(prog)s --data photos/ --finetune mobilenet_v2:0.3@epochs=10,views=4,lr_schedule=cosine,warmup=1
  %(prog)s --preset stanford-dogs --report out/dogs              the reference task

Each contender is a backbone with a head, or a fine-tuned model. All are trained on the same images
and scored on the same test images. The results are printed and written as JSON and CSV. A second
run reads the stored features and takes seconds.
"""


def main(arguments: Sequence[str] | None = None, prog: str = "featcache bench") -> int:
    """Run the command; return the exit status: 0 for success, 2 for an error, 130 for Ctrl-C.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the command line.
    prog : str
        Name of the command in the help.
    """
    options = _parser(prog).parse_args(arguments)
    options.given = list(sys.argv[1:] if arguments is None else arguments)
    return run_command("bench", lambda: _run(options), quiet=options.quiet)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Compare heads on frozen backbones with each other and with fine-tuned "
        "models, by accuracy and cost, on the same split.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_data_options(parser)
    add_backbone_options(parser)
    add_finetune_options(parser)
    _add_split_options(parser)
    _add_contender_options(parser)
    _add_output_options(parser)
    return parser


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--preset", metavar="NAME", help=f"a whole comparison: {', '.join(COMPARISONS)}")
    add(
        "--data",
        help="folder of class folders, CSV file or fetched data set; default: the "
        "folder in FEATCACHE_DATA, or drawn dogs",
    )
    add(
        "--path-column",
        metavar="NAME",
        help="column of a CSV file with the paths; default: path, or the only usual name",
    )
    add(
        "--label-column",
        metavar="NAME",
        help="column of a CSV file with the labels; default: label",
    )
    add(
        "--crop", choices=CROPS, help="box: crop each photo to its columns left, top, right, bottom"
    )
    add("--margin", type=float, default=0.0, help="widen each box by this fraction (default 0)")
    add(
        "--drawn",
        metavar="BREEDSxIMAGES",
        help="drawn dogs instead of --data, such as 20x40: 20 breeds with 40 images each",
    )


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--test-size",
        type=float,
        help="fraction of the images in the test part, 0 to 1; default: "
        "the data's own split, else 0.2",
    )
    add("--split", metavar="FILE", help="use the split.json of an earlier run")
    add("--seed", type=int, default=0, help="first seed of split and training (default 0)")
    add("--seeds", type=int, default=1, metavar="N", help="repeat with N seeds (default 1)")


def _add_contender_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--views",
        type=argument(whole_number(1, MAX_VIEWS)),
        metavar="N",
        default=1,
        help="views of each training image that heads are trained on: itself and augmented ones "
        "(default 1); fine-tuned models have the option views of their own",
    )
    add(
        "--augmentation",
        type=argument(parse_augmentation),
        metavar="AUGMENTATION",
        help="how they differ: flip (with --views 2), or values, as in rotation=0.1,zoom=0.2",
    )
    add(
        "--tta",
        action="store_true",
        help="beside each head, add one that predicts the mean over a test image and its mirror "
        "image",
    )
    add(
        "--baselines",
        action="store_true",
        help="add a backbone with random weights and a colour histogram",
    )
    add(
        "--few-shot",
        action="store_true",
        help="add accuracy by the number of training images per class",
    )
    add(
        "--estimate",
        action="store_true",
        help="print the estimated time and disk space, and what is stored already, and stop",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--report", metavar="DIR", help="write an HTML report to DIR; results are written there too"
    )
    add(
        "--compare",
        metavar="FILE",
        help="show differences to an earlier run, given by its results.json",
    )
    add("--out", default="results", metavar="DIR", help="folder of the results (default: results)")
    add("--batch-size", type=int, help="images per commit of an extraction")
    add("--cache-dir", help="default: FEATCACHE_CACHE, or the user's cache folder")
    add("-q", "--quiet", action="store_true", help="print only the results, warnings and errors")


def _run(options: argparse.Namespace) -> int:
    # Before hours of work, and before the file may be written over.
    options.earlier = read_earlier_run(options.compare) if options.compare else None
    preset = find_preset(options.preset, COMPARISONS) if options.preset else None
    if preset is not None:
        _fill(options, preset)
    is_sample = bool(options.drawn) or uses_sample(options.data)
    dataset = _dataset(options)
    contenders = _contenders(options, is_sample=is_sample)
    out = Path(options.report or options.out)
    make_folder(out)  # before hours of work, not after
    chosen = preset.splits if preset and options.test_size is None and not options.split else {}
    folders = {out / name: size for name, size in chosen.items()} or {out: options.test_size}
    if options.estimate or preset is not None or _may_take_long(options, dataset):
        _print_estimates(options, dataset, contenders, list(folders.values()))
    if options.estimate:
        return 0
    for folder, test_size in folders.items():
        _compare(options, dataset, contenders, folder, test_size)
    return 0


def _may_take_long(options: argparse.Namespace, dataset: Dataset) -> bool:
    """Return whether there are enough images for measuring to be short against the work."""
    return not options.quiet and len(dataset) >= _WORTH_ESTIMATING


def _print_estimates(
    options: argparse.Namespace,
    dataset: Dataset,
    contenders: dict[str, Contender],
    test_sizes: list[float | None],
) -> None:
    """Print the time and disk space of all splits and seeds, and what of it is stored."""
    runs = [
        (_split(options, dataset, test_size, seed), seed)
        for test_size in test_sizes
        for seed in _seeds(options)
    ]
    print(describe(estimates(contenders, runs), cache_folder(options.cache_dir)), flush=True)


def _seeds(options: argparse.Namespace) -> range:
    return range(options.seed, options.seed + max(1, options.seeds))


def _fill(options: argparse.Namespace, preset: Comparison) -> None:
    """Set the options that the command line does not give to those of a preset."""
    options.data = options.data or preset.data
    options.crop = options.crop or preset.crop
    options.backbones = options.backbones or list(preset.backbones)
    options.heads = options.heads or ",".join(preset.heads)
    if options.finetune is None:
        options.finetune = list(preset.finetune)


def _split(
    options: argparse.Namespace, dataset: Dataset, test_size: float | None, seed: int
) -> Split:
    if options.split:
        return load_split(options.split, dataset, cache_dir=options.cache_dir)
    return make_split(dataset, test_size, seed, cache_dir=options.cache_dir)


def _compare(
    options: argparse.Namespace,
    dataset: Dataset,
    contenders: dict[str, Contender],
    out: Path,
    test_size: float | None,
) -> None:
    """Evaluate on one kind of split with all seeds; print the tables, write files and report."""
    progress = False if options.quiet else None
    runs: list[Results] = []
    for seed in _seeds(options):
        split = _split(options, dataset, test_size, seed)
        few_shot = COUNTS if options.few_shot and not runs else ()
        runs.append(
            evaluate(contenders, split, random_state=seed, few_shot=few_shot, progress=progress)
        )
        print(runs[-1])
    files = runs[0].save(out)
    summary = summarise(runs)
    save_summary(summary, out, options.earlier)
    if options.earlier is not None:
        print(describe_differences(runs[0], options.earlier))
    computed = sum(r.facts.computed_now for run in runs for r in run)
    what = format_count(computed, "embedding")
    verb = "was" if computed == 1 else "were"
    done = f"{what} {verb} computed now" if computed else _ALL_STORED
    print(f"{done}; results are in {files[0]} and {files[1]}.")
    _save_bundle(runs[-1], contenders, out)
    if options.report:
        command = shlex.join(["python", "-m", "bench", *(options.given or [])])
        page = write_report(summary, out, contenders, command, options.earlier)
        print(f"The report is {page}: open it in a browser.")


def _save_bundle(results: Results, contenders: dict[str, Contender], out: Path) -> None:
    """Write the best head of the last run as a bundle."""
    about = {
        "Data": f"{results.split.dataset.name}, split {results.split.name}, "
        f"{len(results.split.train)} training and {len(results.split.test)} test images",
    }
    for result in sorted(results, key=lambda r: -r.metrics["top1"]):
        bundle = contenders[result.name].bundle(
            results.split.classes, result.metrics, {"Contender": result.name, **about}
        )
        if bundle is not None:
            bundle.save(out / "model.featcache")
            options = "".join(f" {word}" for word in bundle.file_options)
            command = f"featcache predict {out / 'model.featcache'} photo.jpg{options}"
            print(f"{result.name} is saved: {command}")
            return


def _dataset(options: argparse.Namespace) -> Dataset:
    progress = False if options.quiet else None
    if options.drawn:
        match = re.fullmatch(r"(\d+)x(\d+)", options.drawn)
        if match is None or options.data:
            raise InvalidRequest(
                f"--drawn {options.drawn} must be two numbers such as 20x40, without --data.",
                received=options.drawn,
            )
        for name in ("path_column", "label_column", "crop"):
            if getattr(options, name) is not None:
                raise InvalidRequest(
                    f"--{name.replace('_', '-')} goes with --data; drawn dogs have no such columns."
                )
        return drawn_dogs(int(match[1]), int(match[2]), progress=progress)
    images = Source(
        options.data, None, options.crop, options.margin,
        path_column=options.path_column, label_column=options.label_column,
    )  # fmt: skip
    return images.load(cache_folder(options.cache_dir), progress)


def _contenders(options: argparse.Namespace, *, is_sample: bool) -> dict[str, Contender]:
    given = options.backbones or ["pocket" if is_sample else "mobilenet_v2"]
    shared = SharedOptions(
        {name: getattr(options, name) for name in BACKBONE_OPTIONS}, sample=is_sample
    )
    choices = parse_backbones(given, shared)
    names = [name.strip() for name in (options.heads or ",".join(HEADS)).split(",")]
    extraction = {"batch_size": options.batch_size, "cache_dir": options.cache_dir}
    views = {"views": options.views, "augmentation": options.augmentation}
    suffix = f" on {options.views} views" if options.views > 1 else ""
    contenders: dict[str, Contender] = {
        f"{choice.name} + {name}{suffix}{' + flip' if tta else ''}": CachedHead(
            [
                FrozenBackbone(part.backbone, **extraction, **part.options)
                for part in (choice, *choice.others)
            ],
            make_head(name),
            **views,
            tta=tta,
        )
        for choice in choices
        for name in names
        if name
        for tta in ((False, True) if options.tta else (False,))
    }
    if options.baselines:
        contenders |= _baselines(choices, extraction)
    changes = {"epochs": options.epochs} if options.epochs else {}
    contenders |= parse_all_fine_tuned(
        options.finetune or [], shared, {**changes, "cache_dir": options.cache_dir}
    )
    for part in (part for choice in choices for part in (choice, *choice.others)):
        check_layer(part, options.cache_dir)
    return contenders


def _baselines(
    choices: Sequence[BackboneChoice], extraction: dict[str, Any]
) -> dict[str, Contender]:
    """Return a colour histogram and, unless all backbones are own models, one without training."""
    found: dict[str, Contender] = {}
    for choice in [c for c in choices if not is_model_file(c.backbone)][:1]:
        untrained = {**choice.options, **extraction, "weights": "random"}
        found[f"{choice.backbone}, random weights + logistic"] = CachedHead(
            choice.backbone, "logistic", **untrained
        )
    found["colour histogram + logistic"] = ColourHistogram("logistic")
    return found


if __name__ == "__main__":
    sys.exit(main(prog="python -m bench"))
