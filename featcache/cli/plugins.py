"""Commands of other packages, such as ``featcache bench`` of the package `bench`.

They are entry points of the group ``featcache.commands``, so that this package does not import
packages that depend on it. An entry point names a function that takes the arguments of the
command line, a list of str, and returns the exit status.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click

GROUP = "featcache.commands"
_OURS = {"bench": "Compare heads and fine-tuned models: one split, one evaluation, a report."}


def plugin_names() -> list[str]:
    """Return the names of the commands of other installed packages."""
    return sorted(point.name for point in entry_points(group=GROUP))


def plugin(name: str) -> click.Command | None:
    """Return the command of that name of another installed package; None if there is none."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        return None
    point = found[0]

    def run(arguments: tuple[str, ...]) -> int:
        function = point.load()
        _check_home(point)
        try:
            return int(function(list(arguments)))
        except SystemExit as error:  # of argparse, which has printed the reason
            return error.code if isinstance(error.code, int) else 2

    return click.Command(
        name,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        callback=run,
        help=_OURS.get(name, f"Added by {point.value.split(':')[0]}."),
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def _check_home(point: EntryPoint) -> None:
    """Raise an error if a file of the user has the name of a package of this project."""
    file = getattr(sys.modules[point.module], "__file__", None) or ""
    home = Path(__file__).resolve().parents[2]
    if point.name in _OURS and home not in Path(file).resolve().parents:
        raise click.UsageError(
            f"{file} has the name of a package of featcache and hides it. Rename that file, or run "
            "the command in another folder."
        )
