"""The choice of a format, and the checks before a file is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from .._io.atomic import make_folder
from .._io.choices import check_choice
from .._io.paths import absolute_path
from ..errors import InvalidRequest
from .hugging_face import check_replaceable, import_datasets, write_folder
from .parquet import import_pyarrow, write_parquet
from .rows import ExportedRows
from .tables import sidecar_of, write_csv, write_npy, write_npz

ExportFormat = Literal["npy", "npz", "parquet", "csv", "hf"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
_WRITERS = {
    "npy": write_npy,
    "npz": write_npz,
    "parquet": write_parquet,
    "csv": write_csv,
    "hf": write_folder,
}


def export_format(path: str | os.PathLike[str], format: str | None = None) -> ExportFormat:
    """Return the format of a file to write: the given one, or that of its ending.

    Raises
    ------
    InvalidRequest
        If there is no such format, or the ending does not say which.
    """
    ending = Path(path).suffix.lower().removeprefix(".")
    if format is not None:
        check_choice("format", format, EXPORT_FORMATS)
        # NumPy reads by the ending, and the CSV file beside a matrix must not be the matrix.
        if format in ("npy", "npz") and ending != format:
            raise InvalidRequest(
                f"A file of format {format!r} ends in .{format}, not as {Path(path).name!r} does.",
                received=str(path),
            )
        return format  # type: ignore[return-value]
    for known in EXPORT_FORMATS:
        if ending == known and known != "hf":
            return known
    raise InvalidRequest(
        f"The ending of {Path(path).name!r} does not say the format: name a file that ends in "
        ".npy, .npz, .parquet or .csv, or give format='hf' (--format hf) for a folder of a "
        "Hugging Face data set.",
        received=str(path),
    )


def check_target(
    path: str | os.PathLike[str], format: ExportFormat, *, overwrite: bool
) -> list[Path]:
    """Return the absolute paths that an export writes, after checks that need no embeddings.

    Raises
    ------
    InvalidRequest
        If one exists and may not be replaced.
    MissingExtra
        If the package that writes the format is not installed.
    """
    if "\0" in os.fspath(path):
        raise InvalidRequest(
            f"{os.fspath(path)!r} cannot be the path of a file: it holds a null character.",
            received=os.fspath(path),
        )
    if format == "hf":
        import_datasets()
    if format == "parquet":
        import_pyarrow()
    target = absolute_path(path)
    targets = [target, sidecar_of(target)] if format == "npy" else [target]
    for one in targets:
        if not os.path.lexists(one):
            continue
        if not overwrite:
            raise InvalidRequest(
                f"{one} exists and is not overwritten; choose another path, or pass overwrite=True "
                "(--overwrite).",
                received=str(one),
            )
        if format == "hf":
            check_replaceable(one)
        elif one.is_dir():
            raise InvalidRequest(f"{one} is a folder; name a file.", received=str(one))
    return targets


def export_rows(
    rows: ExportedRows, path: str | os.PathLike[str], format: ExportFormat, *, overwrite: bool
) -> list[Path]:
    """Write rows to a file; return the paths that were written.

    Raises
    ------
    InvalidRequest, MissingExtra
        As `check_target`, and if columns cannot be named as they are.
    StoreWriteError, StoreError
        If the system refuses; what was there before is unchanged then.
    """
    targets = check_target(path, format, overwrite=overwrite)
    make_folder(targets[0].parent)
    _WRITERS[format](rows, targets[0])
    return targets
