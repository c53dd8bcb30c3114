"""Escaping of control characters in text from file names, labels and other data."""

from __future__ import annotations

import re

# Control characters, marks of writing direction, line separators, invisible tags, and
# surrogates, which `os.fsdecode` writes for bytes that are not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # as os.fsdecode writes bytes that are not UTF-8


def printable(text: object, keep: str = "") -> str:
    r"""Escape characters that control a terminal, are invisible, or cannot be encoded.

    Parameters
    ----------
    text : object
        Converted by `str`: a file name, a label, a message.
    keep : str
        Characters not to escape, such as ``"\n"`` in a message of several lines.

    Returns
    -------
    str
        Can be encoded as UTF-8. All other characters, including emoji, are unchanged.

    Examples
    --------
    >>> printable("a\x1b[31m\udc80\u202eb")
    'a\\x1b[31m\\x80\\u202eb'
    """
    return _UNPRINTABLE.sub(lambda m: m[0] if m[0] in keep else _escaped(m[0]), str(text))


def _escaped(character: str) -> str:
    code = ord(character)
    if code in _ESCAPED_BYTES:
        code -= 0xDC00
    return character.encode("unicode_escape").decode() if code < 0x20 else _numbered(code)


def _numbered(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
