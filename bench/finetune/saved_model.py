"""The file of a fine-tuned model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from featcache.toolkit import open_atomic, temporary_path, write_all

_BLOCK_BYTES = 1 << 20


def save_model(model: Any, path: Path) -> None:
    """Write a model as a ``.keras`` file, durably, unless the file exists."""
    if path.exists():
        return
    # In a folder, since Keras requires the file extension.
    temporary = temporary_path(path.parent)
    temporary.mkdir()
    try:
        saved = temporary / path.name
        model.save(saved)
        with (
            open(saved, "rb") as source,
            # Durable, since an existing file is never written again.
            open_atomic(path, description="a fine-tuned model") as target,
        ):
            while block := source.read(_BLOCK_BYTES):
                write_all(target, block)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
