"""What is exported: embeddings, read in blocks, and columns of one value per row."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .._version import __version__
from ..errors import InvalidRequest
from .text import plain_text

Kind = Literal["text", "int", "float", "bool"]
_BLOCK_BYTES = 2**24
_MAX_BLOCK_ROWS = 2**16
_EDGES = ("left", "top", "right", "bottom")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Column:
    """A column of one value per row.

    Attributes
    ----------
    name : str
    kind : {"text", "int", "float", "bool"}
    values : sequence
        Python values of that kind; None where there is none.
    """

    name: str
    kind: Kind
    values: Sequence[Any]

    @classmethod
    def of(cls, name: str, values: Sequence[Any] | NDArray[Any]) -> Column:
        """Return a column of the kind that its values have; values of mixed types become text."""
        if isinstance(values, np.ndarray) and values.dtype.kind in "mM":  # else numbers
            texts = values.astype("U").astype(object)
            texts[np.isnat(values)] = None
            values = texts
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        listed = [None if _is_missing(value) else value for value in listed]
        kinds = {type(value) for value in listed} - {type(None)}
        plain = plain_text(name)
        if kinds == {bool}:
            return cls(plain, "bool", listed)
        if kinds == {int} and all(value is None or value in _INT64 for value in listed):
            return cls(plain, "int", listed)
        if kinds and kinds <= {int, float} and float in kinds:
            return cls(plain, "float", [None if v is None else float(v) for v in listed])
        return cls(plain, "text", [None if v is None else plain_text(v) for v in listed])


@dataclass(frozen=True)
class ExportedRows:
    """Rows to export.

    Attributes
    ----------
    X : array-like (n, d)
        Embeddings; sliced in blocks of rows.
    columns : sequence of Column
        ``path`` and ``id`` first.
    codes : ndarray (n,) or None
        Codes of the labels, NaN for an unlabelled row; None without labels.
    classes : Column or None
        The classes in the order of the codes.
    metadata : mapping of str to str
        For formats that can hold it: the key and the spec of the embeddings.
    """

    X: Any
    columns: Sequence[Column]
    codes: NDArray[Any] | None = None
    classes: Column | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        X: Any,
        columns: Mapping[str, Any],
        attributes: Mapping[str, Any],
        boxes: Sequence[Sequence[int] | None] | None,
        codes: NDArray[Any] | None,
        classes: Sequence[Any] | None,
        metadata: Mapping[str, str],
    ) -> ExportedRows:
        """Return the rows of columns by name; None stands for a column that the data lack.

        Boxes become four columns, by the names under which `featcache.load_dataset` reads them.
        """
        listed = [Column.of(name, values) for name, values in columns.items() if values is not None]
        if boxes is not None:
            edges = zip(*(box or (None,) * len(_EDGES) for box in boxes), strict=True)
            listed += [Column.of(name, values) for name, values in zip(_EDGES, edges, strict=True)]
        listed += [Column.of(name, values) for name, values in attributes.items()]
        named = None if codes is None else Column.of("classes", classes or ())
        return cls(X, listed, codes, named, metadata)

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        for name in names:
            if names.count(name) > 1:
                raise InvalidRequest(
                    f"Two columns would be named {name!r}; rename that of the data set.",
                    received=name,
                )
        values = [] if self.classes is None else list(self.classes.values)
        if len(set(values)) < len(values):
            raise InvalidRequest(
                "Two classes would be written as the same text, since characters that a file "
                "cannot hold are escaped; rename one of them.",
                received=next(value for value in values if values.count(value) > 1),
            )

    def __len__(self) -> int:
        return int(self.X.shape[0])

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return int(self.X.shape[1])

    def check_names(self, reserved: Sequence[str]) -> None:
        """Raise `InvalidRequest` if a column has a name that a format needs for its own."""
        for column in self.columns:
            if column.name in reserved:
                raise InvalidRequest(
                    f"A column of the data set is named {column.name!r}, as the file names its "
                    "own data; rename it.",
                    received=column.name,
                )

    def blocks(self) -> Iterator[slice]:
        """Yield the rows in blocks of about 16 MB of embeddings."""
        n_bytes = max(1, self.width * np.dtype(self.X.dtype).itemsize)
        count = max(1, min(_MAX_BLOCK_ROWS, _BLOCK_BYTES // n_bytes))
        for start in range(0, len(self), count):
            yield slice(start, min(start + count, len(self)))

    def read(self, rows: slice) -> NDArray[Any]:
        """Return the embeddings of a block."""
        return np.ascontiguousarray(self.X[rows])


def spec_metadata(key: str, components: Mapping[str, Any]) -> dict[str, str]:
    """Return what files say about the origin of embeddings."""
    return {
        "featcache_key": key,
        "featcache_spec": json.dumps(dict(components), sort_keys=True),
        "featcache_version": __version__,
    }


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN, NaT
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True
