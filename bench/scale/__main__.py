"""The model as a command: `python -m bench.scale --help`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from featcache.errors import FeatcacheError

from . import tables
from .constants import Constants, describe, load_constants
from .model import Prediction, predict
from .scenario import DESIGNS, IDS, Scenario

_DESCRIPTION = """\
Predict how long an extraction on a cluster takes, what it costs, how large the lists of its store
become, and what limits it. It is a model, fed with figures that were measured on one machine and
with assumptions; nothing is computed on a cluster.

  python -m bench.scale predict --images 1e8 --workers 100
  python -m bench.scale predict --images 1e8 --workers 100 --set image_core_seconds=0.033
  python -m bench.scale tables                    # those of docs/scale.md
  python -m bench.scale pictures --out docs/pictures
  python -m bench.scale constants                 # each with its unit and source
  python -m bench.scale calibrate --out mine.json # measure them on this machine
  python -m bench.scale predict --images 1e6 --workers 4 --constants mine.json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        constants = load_constants(options.constants, dict(options.set))
        run = {"predict": _predict, "tables": _tables, "pictures": _pictures,
               "constants": _constants, "calibrate": _calibrate}[options.command]  # fmt: skip
        run(options, constants)
    except FeatcacheError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--constants", type=Path, metavar="FILE", help="JSON of `calibrate`")
    add("--set", type=_assignment, action="append", default=[], metavar="NAME=VALUE",
        help="replace a constant; may be given several times")  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = commands.add_parser("predict", parents=[common], help="one extraction")
    _add_scenario(asked)
    commands.add_parser("tables", parents=[common], help="the tables of docs/scale.md")
    drawn = commands.add_parser("pictures", parents=[common], help="the pictures of docs/scale.md")
    drawn.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="FOLDER",
                       help="default docs/pictures; needs the extra report")  # fmt: skip
    commands.add_parser("constants", parents=[common], help="list the constants")
    measured = commands.add_parser(
        "calibrate", parents=[common], help="measure the constants here, in about a minute"
    )
    add = measured.add_argument
    add("--out", type=Path, metavar="FILE", help="default: print the JSON")
    add("--backbone", default="mobilenet_v2", help="with random weights (default mobilenet_v2)")
    add("--bucket", metavar="URL", help="s3://bucket/prefix, whose latencies are measured")
    add("--folder", type=Path, help="for photos and models (default: scale in the cache folder)")
    return parser


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=_count, required=True, help="number of images, such as 1e8")
    add("--workers", type=_count, required=True, help="number of workers; 0: no cluster")
    add("--cores", type=_count, default=8, help="cores of each worker (default 8)")
    add("--client-cores", type=_count, default=8, help="cores of the client (default 8)")
    add("--machine-cores", type=_count, help="cores that client and workers share, if they do")
    add("--task-images", type=_count, help="images per task (default: as the code chooses)")
    add("--local", action="store_true", help="images and rows are on disks, not in a bucket")
    add(
        "--ids", choices=IDS, default="new", help="the client finds them (new, the default), "
        "remembers them from an earlier run, or gets them as Dataset(paths, ids=...)",
    )  # fmt: skip
    add("--loaded", action="store_true", help="the workers have loaded the network before")


def _count(text: str) -> int:
    """Return a number of things, which may be written as 1e8."""
    with contextlib.suppress(ValueError):
        value = float(text)
        if value.is_integer() and value >= 0:
            return int(value)
    raise argparse.ArgumentTypeError(f"{text} is not a whole number of 0 or more")


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=NUMBER") from None


def _predict(options: argparse.Namespace, constants: Constants) -> None:
    scenario = Scenario(
        options.images, options.workers, options.cores, options.client_cores,
        options.machine_cores, options.task_images, remote=not options.local,
        ids=options.ids, loaded=options.loaded,
    )  # fmt: skip
    for design in DESIGNS:
        print(f"# {design.name}\n")
        print("\n".join(_describe(predict(scenario, constants, design))), end="\n\n")


def _describe(found: Prediction) -> list[str]:
    listed = found.manifest
    dollars = ", ".join(f"{kind} {value:,.2f}" for kind, value in found.dollars.items())
    return [
        f"{found.total / 3600:,.2f} hours, {found.images_per_second:,.0f} images per second, in "
        f"{found.tasks:,} tasks",
        *(
            f"  {seconds / found.total:4.0%} {cause}: {seconds:,.0f} s"
            for cause, seconds in sorted(found.seconds.items(), key=lambda pair: -pair[1])
            if seconds
        ),
        f"USD: {dollars} (per month)",
        f"rows {found.row_bytes / 1e9:,.1f} GB in {found.shards:,} shards; their sidecars "
        f"{found.sidecar_bytes / 1e9:,.2f} GB; ids in memory {found.index_bytes / 1e9:,.2f} GB",
        f"manifest {listed.largest / 1e6:,.1f} MB; {listed.written / 1e9:,.2f} GB written in "
        f"{listed.changes:,} changes with {listed.requests:,} requests",
        *(f"NOT POSSIBLE: {reason}" for reason in found.impossible),
    ]


def _tables(options: argparse.Namespace, constants: Constants) -> None:
    print("\n".join(tables.report(constants)))


def _pictures(options: argparse.Namespace, constants: Constants) -> None:
    from .charts import write_charts  # imports Matplotlib

    for path in write_charts(constants, options.out):
        print(path)


def _constants(options: argparse.Namespace, constants: Constants) -> None:
    for name, value, unit, source in describe(constants):
        print(f"{name} = {value:g} {unit}\n    {source}")


def _calibrate(options: argparse.Namespace, constants: Constants) -> None:
    from featcache._io.cache_dirs import cache_folder

    from ..perf.timing import describe_machine
    from .calibrate import calibrate

    folder = options.folder or cache_folder() / "scale"
    folder.mkdir(parents=True, exist_ok=True)

    def log(part: str) -> None:
        print(f"{part} ...", file=sys.stderr)

    found = calibrate(options.backbone, folder, options.bucket, log)
    text = json.dumps({"machine": describe_machine(), **found}, indent=1)
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
