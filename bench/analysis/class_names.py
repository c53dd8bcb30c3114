"""Human-readable names of classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from featcache.toolkit import printable

_WORDNET_ID = re.compile(r"\An\d{8}[-_ ]+(?=\S)")


def display_names(classes: Sequence[object]) -> list[str]:
    """Return the names of classes as people write them.

    A WordNet id in front is left out, underscores become spaces, and the first letter is a
    capital. Two classes that would get the same name keep their own. Control characters are
    escaped.

    Parameters
    ----------
    classes : sequence
        Labels: text, numbers or bools.

    Returns
    -------
    list of str

    Examples
    --------
    >>> display_names(["n02085620-Chihuahua", "golden_retriever", 7])
    ['Chihuahua', 'Golden retriever', '7']
    >>> display_names(["wild_cat", "wild cat"])
    ['wild_cat', 'wild cat']
    """
    own = [printable(name) for name in classes]
    found = [_display_name(name) for name in own]
    # Compared without case: "Pug" and "pug" side by side would be read as one class.
    counts = Counter(name.casefold() for name in found)
    return [
        name if counts[name.casefold()] == 1 else original
        for name, original in zip(found, own, strict=True)
    ]


def _display_name(name: str) -> str:
    text = " ".join(_WORDNET_ID.sub("", name, count=1).replace("_", " ").split())
    return text[:1].upper() + text[1:] if text else name
