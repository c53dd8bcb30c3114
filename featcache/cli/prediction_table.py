"""The CSV file of `featcache predict --csv`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from .._io.atomic import make_folder
from .._io.wording import format_count
from ..errors import InvalidRequest
from ..export.export import check_target
from ..export.tables import open_text
from ..export.text import csv_cell, write_table

if TYPE_CHECKING:
    from ..bundle.bundle import Prediction

IdKind = Literal["path", "name", "stem"]
ID_KINDS: tuple[IdKind, ...] = get_args(IdKind)


@dataclass(frozen=True)
class PredictionTable:
    """A CSV file of predictions: one line per photo, in the order of the arguments.

    Attributes
    ----------
    out : str
        The path of the file.
    classes : sequence
        All classes, in the order of the columns of probabilities.
    ids : {"path", "name", "stem"}
        What stands in the first column: the path, the file's name, or that without its ending.
    proba : bool
        Whether there is a column of probabilities for each class.
    overwrite : bool
        Whether an existing file is replaced.
    """

    out: str
    classes: Sequence[Any]
    ids: IdKind
    proba: bool
    overwrite: bool

    def check(self, paths: Sequence[str]) -> None:
        """Raise `InvalidRequest` if the file of photos cannot be written as it is asked for."""
        check_target(self.out, "csv", overwrite=self.overwrite)
        names = [csv_cell(name) for name in self._header()]
        for name in names:
            if names.count(name) > 1:
                raise InvalidRequest(
                    f"Two columns of {self.out} would be named {name!r}: a class has the name of "
                    "another column. Leave out --proba.",
                    received=name,
                )
        seen: dict[str, str] = {}
        for path in paths:
            other = seen.setdefault(self._id(path), path)
            if self.ids != "path" and other != path:
                raise InvalidRequest(
                    f"{other!r} and {path!r} have the same {self.ids} {self._id(path)!r}, so that "
                    "their lines could not be told apart; choose another --id.",
                    received=self._id(path),
                )

    def write(self, predictions: Sequence[Prediction]) -> Path:
        """Write the file, atomically, and return its path."""
        (path,) = check_target(self.out, "csv", overwrite=self.overwrite)
        make_folder(path.parent)
        with open_text(path) as file:
            write_table(file, self._header(), self._lines(predictions))
        return path

    def _header(self) -> list[Any]:
        first = "path" if self.ids == "path" else "id"
        return [first, "label", *(map(str, self.classes) if self.proba else ())]

    def _lines(self, predictions: Sequence[Prediction]) -> Iterator[list[Any]]:
        for prediction in predictions:
            found = dict(prediction.top_classes)
            label = prediction.top_classes[0][0] if found else None
            columns = [found.get(name) for name in self.classes] if self.proba else []
            yield [self._id(prediction.path), label, *columns]

    def _id(self, path: str) -> str:
        name = os.path.basename(path)
        return {"path": path, "name": name, "stem": os.path.splitext(name)[0]}[self.ids]


def summary_line(path: Path, predictions: Sequence[Prediction]) -> str:
    """Return what the command prints once the file is written."""
    bad = sum(prediction.reason is not None for prediction in predictions)
    without = f", {bad:,} of them without a prediction" if bad else ""
    return f"{path}: {format_count(len(predictions), 'photo')}{without}"
