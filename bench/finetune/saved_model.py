"""The file of a fine-tuned model."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

from featcache.toolkit import get_logger, open_atomic, temporary_path, write_all

log = get_logger(__name__)

_BLOCK_BYTES = 1 << 20


def save_model(model: Any, path: Path, *, trained_now: bool) -> None:
    """Write a model as a ``.keras`` file, durably.

    Parameters
    ----------
    model : keras.Model
    path : Path
    trained_now : bool
        Whether its weights may differ from those in the file. If not, an intact file is kept.
    """
    if path.exists() and not trained_now:
        if _is_intact(path):
            return
        log.warning("%s is damaged; it is written again from the checkpoint.", path)
    # In a folder, since Keras requires the file extension.
    temporary = temporary_path(path.parent)
    temporary.mkdir()
    try:
        saved = temporary / path.name
        model.save(saved)
        with (
            open(saved, "rb") as source,
            # Durable, since an intact file is not written again.
            open_atomic(path, description="a fine-tuned model") as target,
        ):
            while block := source.read(_BLOCK_BYTES):
                write_all(target, block)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_intact(path: Path) -> bool:
    """Return whether all members of a ``.keras`` file, which is a ZIP archive, can be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive raises many kinds of errors
        return False
