"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from .._io.cache_dirs import cache_folder, cache_url, local_cache, stores_folder
from .._io.console import run_command
from .._io.wording import parse_bytes
from ..backbones.image_size import parse_image_size
from ..backbones.spec import ENGINES, POOLINGS, PRECISIONS, backbone_entries
from ..data.boxes import CROPS, Crop
from ..engines.devices import parse_devices
from ..errors import InvalidRequest
from ..hdf5.row_dtype import ROW_DTYPES
from ..images.decode import RESIZES
from ..images.views import MAX_VIEWS, Augmentation, Policy, parse_augmentation

if TYPE_CHECKING:
    from ..data.dataset import Dataset

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """Values of the options that every command has.

    Attributes
    ----------
    quiet : bool
        Print the result, warnings and errors only.
    json : bool
        Print the result as JSON.
    cache_dir : str or None
        Cache folder; None for the default one.
    no_progress : bool
        Show no progress bars. False for a command without that option.
    """

    quiet: bool
    json: bool
    cache_dir: str | None
    no_progress: bool = False

    @property
    def cache(self) -> Path:
        """The cache folder; a cache in an object store is refused."""
        return local_cache(self.cache_dir)

    @property
    def local(self) -> Path:
        """The folder of what is kept here, also of a cache in an object store."""
        return cache_folder(self.cache_dir)

    @property
    def url(self) -> str | None:
        """The URL of the cache if it is in an object store."""
        return cache_url(self.cache_dir)

    @property
    def stores(self) -> Path:
        """The folder that holds the stores."""
        return stores_folder(self.cache)

    @property
    def progress(self) -> bool | None:
        """The argument ``progress=`` of the Python API."""
        return False if self.no_progress or self.quiet else None


def command(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """Return a decorator that turns a function of `Common` and options into a command.

    The function returns the exit status.
    """

    def decorate(run: Callable[..., int]) -> click.Command:
        @functools.wraps(run)
        def wrapped(quiet: bool, json: bool, cache_dir: str | None, **options: Any) -> int:
            common = Common(quiet, json, cache_dir, options.pop("no_progress", False))
            return run_command("featcache", lambda: run(common, **options), quiet=quiet)

        result = click.command(name, context_settings=CONTEXT)(wrapped)
        result.params += _common_options()  # the help lists them after the command's own
        return result

    return decorate


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, help="Log only warnings and errors."),
        click.Option(["--json"], is_flag=True, help="Print the result as JSON."),
        click.Option(
            ["--cache-dir"],
            metavar="DIR",
            help="Folder of all stores; for extract, explain and the maintenance of stores also "
            "s3://bucket/prefix. Default: FEATCACHE_CACHE, or the user's cache folder.",
        ),
    ]


def options(*several: Callable[[F], F]) -> Callable[[F], F]:
    """Combine options into one decorator; the help lists them in this order."""

    def decorate(function: F) -> F:
        for option in reversed(several):
            function = option(function)
        return function

    return decorate


class ImageSize(click.ParamType):  # type: ignore[type-arg]
    """An image size: a side in pixels, or height and width as ``192x256``."""

    name = "PIXELS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, int]:
        """Read the text of the option."""
        try:
            return parse_image_size(str(value))
        except InvalidRequest as error:
            self.fail(str(error))


class AugmentationOption(click.ParamType):  # type: ignore[type-arg]
    """An augmentation: ``flip``, ``default``, or values such as ``rotation=0.1,zoom=0.2``."""

    name = "AUGMENTATION"

    def convert(self, value: Any, param: Any, ctx: Any) -> Augmentation | Policy:
        """Read the text of the option."""
        try:
            return parse_augmentation(value) if isinstance(value, str) else value
        except InvalidRequest as error:
            self.fail(str(error))


class DevicesOption(click.ParamType):  # type: ignore[type-arg]
    """Devices: ``auto``, a number of GPUs, or names such as ``gpu:0,gpu:1``."""

    name = "DEVICES"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str | list[str]:
        """Read the text of the option."""
        text = str(value)
        devices: int | str | list[str] = text
        if text.isdecimal():
            devices = int(text)
        elif "," in text:
            devices = text.split(",")
        try:
            parse_devices(devices)
        except InvalidRequest as error:
            self.fail(str(error))
        return devices


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, such as ``20G`` or ``500M`` (powers of 1024)."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the text of the option."""
        if isinstance(value, int):
            return value
        try:
            return parse_bytes(value)
        except InvalidRequest as error:
            self.fail(str(error))


def complete_backbone(
    ctx: click.Context, param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Return the completions of a backbone: names of the table, else files."""
    return _items(backbone_entries(), typed) or [CompletionItem(typed, type="file")]


def complete_store(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """Return the completions of a store: the stores of the cache folder, else folders."""
    folder = stores_folder(cache_folder(ctx.params.get("cache_dir")))
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return _items(sorted(names), typed) or [CompletionItem(typed, type="dir")]


def _items(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def _one_or_several(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> str | list[str] | None:
    """Return what a repeatable option was given, as `extract` takes it; None for nothing."""
    return list(given) if len(given) > 1 else given[0] if given else None


no_progress = click.option("--no-progress", is_flag=True, help="Show no progress bars.")
one_store = click.argument("store", shell_complete=complete_store)

crop = click.option(
    "--crop",
    type=click.Choice(CROPS),
    help="box: crop each photo to its columns left, top, right, bottom. Default: whole photos.",
)
margin = click.option(
    "--margin",
    type=float,
    default=0.0,
    show_default=True,
    help="Fraction of its size, 0 to 1, by which each box is widened.",
)

path_column = click.option(
    "--path-column",
    metavar="NAME",
    help="Column of a table with the paths. Default: path, or the only one with a usual name such "
    "as filename or image_path.",
)
label_column = click.option(
    "--label-column", metavar="NAME", help="Column of a table with the labels. Default: label."
)

extraction = options(
    click.argument("backbone", shell_complete=complete_backbone),
    click.argument("data", required=False, type=click.Path()),
    path_column,
    label_column,
    crop,
    margin,
    click.option(
        "--layer",
        multiple=True,
        callback=_one_or_several,
        help="Layer whose output is the embedding: a name, or an index such as -2. Default: the "
        "one that feeds the classification layer. Of an ONNX network a tensor or node; default: "
        "its output. Repeat it for several layers, computed in one pass.",
    ),
    click.option(
        "--pooling", type=click.Choice(POOLINGS),
        help="How the output of a layer with spatial axes, or of tokens, becomes a vector; cls: "
        "the first token. Default: avg.",
    ),
    click.option(
        "--image-size", type=ImageSize(),
        help="Side, or height and width as 192x256. Default: the backbone's own.",
    ),
    click.option(
        "--resize", type=click.Choice(RESIZES),
        help="Ignore the aspect ratio, crop the centre, or pad with black. Default: stretch; for a "
        "preset of keras-hub, what its image converter does.",
    ),
    click.option(
        "--weights", default="auto", show_default=True,
        help="auto (ImageNet), imagenet, random, random:SEED, or a weights file.",
    ),
    click.option(
        "--preprocessing",
        help="For a model of your own that does not rescale inside: none (0..255), unit (0..1), "
        "tf (-1..1), torch or caffe (ImageNet), clip, or a mean and standard deviation of 0..1 as "
        "mean:0.48:0.46:0.41:std:0.27:0.26:0.28 (also scale:0.0039, channels:bgr).",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
        help="Number format of the forward pass. bfloat16 is faster and less exact.",
    ),
    click.option(
        "--row-dtype", type=click.Choice(ROW_DTYPES), default="float32", show_default=True,
        help="Number format of stored rows. float16 takes half the disk and is less exact.",
    ),
    click.option(
        "--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
        help="What runs the backbone. auto: OpenVINO if installed and without a GPU, else Keras, "
        "or ONNX Runtime for an ONNX network.",
    ),
    click.option(
        "--views", type=click.IntRange(1, MAX_VIEWS), metavar="N", default=1, show_default=True,
        help="Views of each image: itself and augmented ones. Raising N later computes only the "
        "new views.",
    ),
    click.option(
        "--augmentation", type=AugmentationOption(),
        help="How the views differ: flip (with --views 2), or values that differ from the default, "
        "as in rotation=0.1,zoom=0.2,brightness=0.",
    ),
    click.option("--random-state", type=click.IntRange(0), metavar="N", default=0,
                 show_default=True, help="Seed of the views."),
    click.option("--batch-size", type=click.IntRange(1, 2**20), metavar="N",
                 help="Images per commit. Default: about those of one second."),
    click.option("--workers", type=click.IntRange(1, 1024), metavar="N",
                 help="Number of decoding threads. Default: one per core, at most 8."),
    click.option("--retry-failed", is_flag=True, help="Try quarantined images again."),
    click.option(
        "--shared-dir", metavar="DIR",
        help="Another cache folder, or s3://bucket/prefix, whose rows are used too; it is only "
        "read. Default: FEATCACHE_SHARED, if set.",
    ),
    click.option(
        "--allow-h5", is_flag=True,
        help="Accept a model in Keras' old .h5 format, which can contain code: only from a source "
        "that you trust.",
    ),
    no_progress,
)  # fmt: skip


def load(data: str, crop: Crop | None, margin: float, common: Common) -> Dataset:
    """Load the data set of the options --data, --crop and --margin."""
    from ..datasets.load import load_dataset

    return load_dataset(data, crop=crop, margin=margin, cache_dir=common.cache_dir)
