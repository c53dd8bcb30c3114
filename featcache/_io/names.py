"""The one pattern for names that come from a file and become a part of a path."""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidRequest

# Short enough that a folder's name with a key behind it fits the 255 bytes of file systems.
MAX_LENGTH = 100
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{MAX_LENGTH - 1}}}")


def is_name(name: Any) -> bool:
    """Tell whether a value can be a part of a path: no separator, no ``..``, no hidden file."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and ".." not in name


def check_name(name: Any, what: str) -> None:
    """Raise `InvalidRequest` unless `name` can be a part of a path.

    Parameters
    ----------
    name : Any
        Letters A-Z and a-z, digits, ``_``, ``.`` and ``-``; 1 to 100 characters, the first
        one a letter or a digit, no ``..``.
    what : str
        How the message calls it.
    """
    if not is_name(name):
        raise InvalidRequest(
            f"{what} cannot be {_shown(name)}: a name has 1 to {MAX_LENGTH} of the characters "
            "A-Z, a-z, 0-9, '_', '.' and '-', begins with a letter or a digit, and holds no '..'.",
            received=name,
        )


def _shown(name: Any) -> str:
    text = ascii(name)  # control characters and terminal escapes are shown, not sent
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"
