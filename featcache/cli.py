"""The command line: `featcache --help`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__, storecommands
from .console import run_command
from .specs import ENGINES, PRECISIONS

_EXAMPLES = """\
examples:
  featcache extract resnet50 photos/           embeddings of a folder of class folders
  featcache extract vgg19 photos/ --layer fc1  another layer goes to another store
  featcache extract my_model.keras photos/     a network of your own, saved by Keras
  featcache explain resnet50 photos/           what would be computed, and why
  featcache ls                                 all stores, with rows and size
  featcache predict model.featcache dog.jpg    what it shows, with probabilities
  featcache fetch stanford-dogs                20,580 photos of 120 breeds, about 816 MB
  featcache extract resnet50 stanford-dogs --crop box
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0: done. 1: `verify` found damage, or `predict` a photo that cannot be used. 2: an error,
    told in one paragraph. 130: Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    return run_command("featcache", lambda: int(options.run(options)), quiet=options.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="featcache",
        description="Compute image embeddings once with a frozen Keras backbone; reuse them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"featcache {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--cache-dir", help="default: FEATCACHE_CACHE or your cache folder")

    def command(name: str, run: Any, help_: str, *parents: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_, parents=[common, *parents])
        sub.set_defaults(run=run)
        return sub

    what = _extraction_options()
    command("extract", _extract, "compute what is not stored, and say where it is", what)
    command("explain", _explain, "say what extract would do and why; compute nothing", what)
    storecommands.add_commands(command)
    command("backbones", _backbones, "list the backbones with size, layer and width")
    _add_predict(command("predict", _predict, "say what photos show, by a bundle made before"))
    _add_fetch(command("fetch", _fetch, "download a published data set, check it, unpack it"))
    return parser


def _add_predict(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("bundle", help="a file made by bundle.save(), such as model.featcache of a benchmark run")
    add("photos", nargs="+", help="photos, folders of photos, or - for a list on standard input")
    add("--backbone", metavar="MODEL.keras", help="where the bundle was made with another's model")
    add("--top", type=int, default=3, help="guesses a photo (default 3)")
    add("--weights", help="of the backbone, where they are a file that lies elsewhere now")
    add("--no-progress", action="store_true", help="no progress bars on a terminal")


def _add_fetch(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("name", help="stanford-dogs or oxford-pets")
    add("--from", dest="source", metavar="WHERE", help="folder with the archives, or a mirror")
    add("--any-hash", action="store_true", help="take archives that are not the published ones")
    add("--keep-archives", action="store_true", help="do not delete them once unpacked")
    add("--no-progress", action="store_true", help="no progress bars on a terminal")


def _extraction_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    add = options.add_argument
    add("backbone", help="a name from `featcache backbones`, or a model.keras of your own")
    add(
        "--allow-h5",
        action="store_true",
        help="take a model in Keras' old format, which can carry code: only from people you trust",
    )
    add(
        "--preprocessing",
        help="for a model of your own that does not rescale inside: none "
        "(0..255), unit (0..1), tf (-1..1), torch or caffe",
    )
    add(
        "data",
        nargs="?",
        help="folder of class folders, folder of images, CSV with a column 'path', or the name "
        "of a fetched data set; without it FEATCACHE_DATA, or a small sample of drawn dogs",
    )
    add("--crop", choices=["whole", "box"], help="box: what left, top, right, bottom enclose")
    add("--margin", type=float, default=0.0, help="widen each box by this share (default 0)")
    add("--layer", help="default: the penultimate layer")
    add("--pooling", choices=["avg", "max", "flat"], help="for spatial layers (default avg)")
    add("--image-size", type=int, nargs="+", metavar="PIXELS", help="side, or height and width")
    add("--resize", choices=["stretch", "crop", "pad"], default="stretch", help="default stretch")
    add("--weights", default="auto", help="auto, imagenet, random, random:SEED or a file")
    add("--precision", choices=PRECISIONS, default="float32", help="default float32")
    add("--engine", choices=ENGINES, default="auto", help="auto: OpenVINO where it helps")
    add("--batch-size", type=int, help="images a commit; default: those of a second")
    add("--workers", type=int, help="decoding threads (default one a core)")
    add("--retry-failed", action="store_true", help="try quarantined images once more")
    add("--no-progress", action="store_true", help="no progress bars on a terminal")
    add("--dry-run", action="store_true", help="extract: only say what would be done")
    return options


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    size = options.image_size
    if size is not None:
        size = size[0] if len(size) == 1 else tuple(size)
    return {
        "crop": options.crop,
        "margin": options.margin,
        "layer": options.layer,
        "preprocessing": options.preprocessing,
        "pooling": options.pooling,
        "image_size": size,
        "resize": options.resize,
        "weights": options.weights,
        "precision": options.precision,
        "workers": options.workers,
        "cache_dir": options.cache_dir,
        "retry_failed": options.retry_failed,
        "progress": False if options.no_progress or options.quiet else None,
    }


def _backbone(options: argparse.Namespace) -> Any:
    """Return a name or path as it is; only a model in the old format is loaded at once."""
    from .modelfile import OLD_ENDINGS, load_model

    if not (options.allow_h5 and options.backbone.lower().endswith(OLD_ENDINGS)):
        return options.backbone
    return load_model(options.backbone, allow_h5=True)


def _extract(options: argparse.Namespace) -> int:
    from .extraction import extract

    if options.dry_run:
        return _explain(options)
    features = extract(
        _backbone(options),
        options.data,
        batch_size=options.batch_size,
        engine=options.engine,
        **_arguments(options),
    )
    summary = features.summary
    if options.json:
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
    print(f"{features!r}\n{summary}")
    for bad in features.quarantined[:10]:
        print(f"  quarantined: {bad.path!r} {bad.reason}")
    if len(features.quarantined) > 10:
        print(f"  ... and {len(features.quarantined) - 10} more (--json lists all)")
    return 0


def _explain(options: argparse.Namespace) -> int:
    from .preparation import explain

    explanation = explain(_backbone(options), options.data, **_arguments(options))
    if options.json:
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


def _predict(options: argparse.Namespace) -> int:
    from .predicting import run

    return run(options)


def _fetch(options: argparse.Namespace) -> int:
    from .datasets.fetched import fetch, load

    progress = False if options.no_progress or options.quiet else None
    folder = fetch(
        options.name,
        source=options.source,
        any_hash=options.any_hash,
        keep_archives=options.keep_archives,
        cache_dir=options.cache_dir,
        progress=progress,
    )
    photos = load(options.name, cache_dir=options.cache_dir)
    boxes = load(options.name, crop="box", cache_dir=options.cache_dir)
    counts = {part: (photos.split or []).count(part) for part in ("train", "test")}
    record = {
        "folder": str(folder),
        "photos": len(photos),
        "boxes": len(boxes),
        "classes": len(photos.classes or []),
        **counts,
    }
    if options.json:
        print(json.dumps(record, indent=2))
    else:
        print(
            f"{photos.name}: {len(photos):,} photos of {record['classes']} classes "
            f"({counts['train']:,} to train, {counts['test']:,} to test), {len(boxes):,} boxes, in "
            f"{folder}\nNext: featcache extract resnet50 {options.name}"
        )
    return 0


def _backbones(options: argparse.Namespace) -> int:
    from .specs import recipes
    from .weights import imagenet_path

    if options.json:
        print(json.dumps([vars(recipe) for recipe in recipes().values()], indent=2))
        return 0
    print(f"{'name':<20} {'pixels':>6} {'width':>6} {'parameters':>12}  layer; weights on disk")
    for r in recipes().values():
        here = "yes" if r.packaged or imagenet_path(r) else "no"
        print(f"{r.name:<20} {r.image_size:>6} {r.width:>6} {r.parameters:>12,}  {r.layer}; {here}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
