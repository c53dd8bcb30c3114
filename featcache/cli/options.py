"""Options that several commands share, and the values that they are read into."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from .._io.cache_dirs import cache_folder, stores_folder
from .._io.console import run_command
from ..backbones.spec import ENGINES, POOLINGS, PRECISIONS, backbone_entries
from ..data.boxes import CROPS, Crop
from ..images.decode import RESIZES

if TYPE_CHECKING:
    from ..data.dataset import Dataset

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)i?B?", re.IGNORECASE)

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """Options that every command has.

    Attributes
    ----------
    quiet : bool
    json : bool
    cache_dir : str or None
    """

    quiet: bool
    json: bool
    cache_dir: str | None

    @property
    def cache(self) -> Path:
        """The cache folder."""
        return cache_folder(self.cache_dir)

    @property
    def stores(self) -> Path:
        """The folder of the stores."""
        return stores_folder(self.cache)

    def progress(self, no_progress: bool) -> bool | None:
        """Return the argument ``progress=`` of the Python API."""
        return False if no_progress or self.quiet else None


def command(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function that takes `Common` first and returns an exit status."""

    def decorate(run: Callable[..., int]) -> click.Command:
        @functools.wraps(run)
        def wrapped(quiet: bool, json: bool, cache_dir: str | None, **options: Any) -> int:
            common = Common(quiet, json, cache_dir)
            return run_command("featcache", lambda: run(common, **options), quiet=quiet)

        made = click.command(name, context_settings=CONTEXT)(wrapped)
        made.params += _common_options()  # after the command's own, as the help lists them
        return made

    return decorate


def _common_options() -> list[click.Parameter]:
    return [
        click.Option(["-q", "--quiet"], is_flag=True, help="Only warnings and errors."),
        click.Option(["--json"], is_flag=True, help="Print the result as JSON."),
        click.Option(
            ["--cache-dir"], metavar="DIR", help="Default: FEATCACHE_CACHE, or your cache folder."
        ),
    ]


def options(*several: Callable[[F], F]) -> Callable[[F], F]:
    """Join options into one decorator, in the order in which the help lists them."""

    def decorate(function: F) -> F:
        for one in reversed(several):
            function = one(function)
        return function

    return decorate


class ImageSize(click.ParamType):  # type: ignore[type-arg]
    """One side in pixels, or height and width as ``192x256``."""

    name = "PIXELS"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | tuple[int, int]:
        """Read the text of the option."""
        match = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size; give 192, or height and width as 192x256.")
        return int(match[1]) if match[2] is None else (int(match[1]), int(match[2]))


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """A size such as ``20G`` or ``500M``, in bytes."""

    name = "SIZE"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Read the text of the option."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            self.fail(f"{value!r} is not a size; give one such as 20G or 500M.")
        return int(float(match[1]) * _UNITS[match[2].upper()])


def complete_backbone(ctx: click.Context, param: click.Parameter, typed: str) -> list[Any]:
    """Offer the names of the table, and files for a model of one's own."""
    return _items(backbone_entries(), typed) or [CompletionItem(typed, type="file")]


def complete_store(ctx: click.Context, param: click.Parameter, typed: str) -> list[Any]:
    """Offer the stores of the cache folder."""
    folder = stores_folder(cache_folder(ctx.params.get("cache_dir")))
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return _items(sorted(names), typed) or [CompletionItem(typed, type="dir")]


def _items(names: Iterable[str], typed: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(typed)]


no_progress = click.option("--no-progress", is_flag=True, help="No progress bars on a terminal.")
one_store = click.argument("store", shell_complete=complete_store)

crop = click.option(
    "--crop", type=click.Choice(CROPS), help="box: what left, top, right, bottom enclose."
)
margin = click.option(
    "--margin",
    type=float,
    default=0.0,
    show_default=True,
    help="Widen each box by this fraction of its size.",
)

extraction = options(
    click.argument("backbone", shell_complete=complete_backbone),
    click.argument("data", required=False, type=click.Path()),
    crop,
    margin,
    click.option("--layer", help="A name, or an index such as -2. Default: the penultimate one."),
    click.option(
        "--pooling", type=click.Choice(POOLINGS), help="For spatial layers. Default: avg."
    ),
    click.option("--image-size", type=ImageSize(), help="Side, or height and width as 192x256."),
    click.option(
        "--resize", type=click.Choice(RESIZES), default="stretch", show_default=True,
        help="Ignore the aspect ratio, cut the middle out, or add black bars.",
    ),
    click.option(
        "--weights", default="auto", show_default=True,
        help="auto, imagenet, random, random:SEED or a file.",
    ),
    click.option(
        "--preprocessing",
        help="For a model of your own that does not rescale inside: none (0..255), unit (0..1), "
        "tf (-1..1), torch or caffe.",
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
        help="Number format of the forward pass.",
    ),
    click.option(
        "--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
        help="auto: OpenVINO where it helps.",
    ),
    click.option("--batch-size", type=click.IntRange(1, 2**20), metavar="N",
                 help="Images per commit. Default: those of a second."),
    click.option("--workers", type=click.IntRange(1, 1024), metavar="N",
                 help="Decoding threads. Default: one per core."),
    click.option("--retry-failed", is_flag=True, help="Try quarantined images once more."),
    click.option(
        "--allow-h5", is_flag=True,
        help="Take a model in Keras' old format, which can carry code: only from people you trust.",
    ),
    no_progress,
)  # fmt: skip


def load(data: str, crop: Crop | None, margin: float, common: Common) -> Dataset:
    """Return the data set that an option names."""
    from ..datasets.load import load_dataset

    return load_dataset(data, crop=crop, margin=margin, cache_dir=common.cache_dir)
