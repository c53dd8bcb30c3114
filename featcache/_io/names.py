"""Validation of names that become part of a path."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidRequest

# A folder name with a key appended must fit the 255 bytes that file systems allow.
MAX_LENGTH = 100
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_LENGTH - 1}}}")


def is_name(name: Any) -> bool:
    """Return whether a value is safe as part of a path: no separator, no ``..``, not hidden."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and ".." not in name


def check_name(name: Any, description: str) -> None:
    """Raise `InvalidRequest` unless a name is safe as part of a path.

    Parameters
    ----------
    name : Any
        Valid names have 1 to 100 of the characters A-Z, a-z, 0-9, ``_``, ``.`` and ``-``,
        begin with a letter or a digit, and do not contain ``..``.
    description : str
        What the name is for, as the message begins.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"{description} cannot be {_shorten(name)}: a name has 1 to {MAX_LENGTH} of the "
            "characters A-Z, a-z, 0-9, '_', '.' and '-', begins with a letter or a digit, and "
            "does not contain '..'.",
            received=name,
        )


def _shorten(name: Any) -> str:
    text = ascii(name)  # escapes control characters
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
