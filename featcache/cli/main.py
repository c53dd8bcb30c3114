"""The command `featcache`: all commands in one group, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .._version import __version__
from .catalog import backbones, completion, fetch
from .collect import gc
from .export import export
from .export_model import export_model
from .extraction import explain, extract
from .options import CONTEXT
from .plugins import plugin, plugin_names
from .predict import predict
from .stores import info, ls, repair, rm, verify
from .transfer import pack, pull, push, unpack

_DIR = "--cache-dir"
_EXAMPLES = """\b
examples:
  featcache extract pocket                     a first try: drawn dogs, no download
  featcache extract resnet50 photos/           embeddings of a folder of class folders
  featcache extract vgg19 photos/ --layer fc1  another layer, in a store of its own
  featcache extract my_model.keras photos/     a model of your own, saved by Keras
  featcache extract my_network.onnx photos/ --preprocessing torch     of any framework
  featcache explain resnet50 photos/           what would be computed, and why
  featcache export resnet50 photos/ --out x.parquet    embeddings and labels, for other tools
  featcache ls                                 all stores, with rows and size
  featcache predict model.featcache dog.jpg    its classes, with probabilities
  featcache export-model model.featcache --out dogs.onnx     a network for other programs
  featcache fetch stanford-dogs                20,580 photos of 120 breeds, about 816 MB
  featcache extract resnet50 stanford-dogs --crop box
"""


class _InOrder(click.Group):
    """A group of commands that lists them in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *plugin_names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of this package, or one of a plugin."""
        return super().get_command(ctx, cmd_name) or plugin(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept the common options before the name of the command as well."""
        return super().parse_args(ctx, _move_common_options(args))


def _move_common_options(args: list[str]) -> list[str]:
    """Move leading common options behind the name of the command."""
    count = 0
    while count < len(args) and args[count].partition("=")[0] in ("-q", "--quiet", "--json", _DIR):
        count += 2 if args[count] == _DIR else 1
    return [*args[count : count + 1], *args[:count], *args[count + 1 :]]


@click.group(cls=_InOrder, context_settings=CONTEXT, epilog=_EXAMPLES)
@click.version_option(__version__, prog_name="featcache", message="%(prog)s %(version)s")
def featcache() -> None:
    """Compute image embeddings once with a frozen Keras backbone; reuse them."""


for _command in (
    extract, explain, export, export_model, ls, info, verify, repair, rm, gc, pack, unpack, push,
    pull, backbones, predict, fetch, completion,
):  # fmt: skip
    featcache.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process, ``sys.argv[1:]``.

    Returns
    -------
    int
        The exit status. 0: success. 1: `verify` found damage, `predict --strict` a photo that
        cannot be used, or `gc` could not remove everything. 2: an error, which is printed on
        standard error. 130: Ctrl-C.
    """
    args = None if arguments is None else list(arguments)
    try:
        status = featcache.main(args, prog_name="featcache", standalone_mode=False)
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    return int(status or 0)
