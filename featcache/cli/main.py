"""All commands in one group, and the exit status of a call."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .._version import __version__
from .catalog import backbones, completion, fetch
from .collect import gc
from .extraction import explain, extract
from .options import CONTEXT
from .plugins import plugin, plugin_names
from .predict import predict
from .stores import info, ls, repair, rm, verify
from .transfer import pack, unpack

_DIR = "--cache-dir"
_EXAMPLES = """\b
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


class _InOrder(click.Group):
    """A group whose help lists commands as they were added, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *plugin_names()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, or one that another package adds."""
        return super().get_command(ctx, cmd_name) or plugin(cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options that all commands have before the command's name as well."""
        return super().parse_args(ctx, _behind_the_command(args))


def _behind_the_command(args: list[str]) -> list[str]:
    count = 0
    while count < len(args) and args[count].partition("=")[0] in ("-q", "--quiet", "--json", _DIR):
        count += 2 if args[count] == _DIR else 1
    return [*args[count : count + 1], *args[:count], *args[count + 1 :]]


@click.group(cls=_InOrder, context_settings=CONTEXT, epilog=_EXAMPLES)
@click.version_option(__version__, prog_name="featcache", message="%(prog)s %(version)s")
def featcache() -> None:
    """Compute image embeddings once with a frozen Keras backbone; reuse them."""


for _command in (
    extract, explain, ls, info, verify, repair, rm, gc, pack, unpack, backbones, predict, fetch,
    completion,
):  # fmt: skip
    featcache.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0: done. 1: `verify` found damage, `predict --strict` a photo that cannot be used, or
        `gc` could not remove everything. 2: an error, described in one paragraph. 130: Ctrl-C.
    """
    words = None if arguments is None else list(arguments)
    try:
        status = featcache.main(words, prog_name="featcache", standalone_mode=False)
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    return int(status or 0)
