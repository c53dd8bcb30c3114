"""Commands of other packages, such as ``featcache bench`` of the package `bench`.

They are entry points of the group ``featcache.commands``, so that this package does not import
packages that depend on it. An entry point names a function that takes the arguments of the
command line, a list of str, and returns the exit status.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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
        function = _load(point)
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


def _load(point: EntryPoint) -> Callable[[list[str]], Any]:
    """Import the function of an entry point."""
    if point.name in _OURS:
        for package in (point.module.split(".")[0], "heads"):  # bench imports heads
            _check_home(package)
    try:
        function: Callable[[list[str]], Any] = point.load()
    except ImportError as error:
        raise click.UsageError(
            f"The command {point.name} cannot be imported from {point.module}: {error}. Install "
            "the package that provides it again, with what it needs."
        ) from error
    return function


def _check_home(package: str) -> None:
    """Raise an error if a file of the user has the name of a package of this project.

    The package is not imported: with another file in its place, that would fail with an error
    that does not tell why.
    """
    spec = find_spec(package)
    file = None if spec is None else spec.origin
    home = Path(__file__).resolve().parents[2]
    if file is not None and home not in Path(file).resolve().parents:
        raise click.UsageError(
            f"{file} has the name of a package of featcache and hides it. Rename that file, or run "
            "the command in another folder."
        )
