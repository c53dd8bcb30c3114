"""The names of the stores in an object store."""

from __future__ import annotations

from collections.abc import Sequence

from ..._io.own_files import is_keyed_name
from ..._io.wording import format_values
from ...data.urls import clean_url
from ...errors import UnknownStore
from .objects import Bucket


def store_names(url: str, names: Sequence[str]) -> list[str]:
    """Return the names of the stores in an object store that begin with one of some texts.

    Parameters
    ----------
    url : str
        The URL of the cache.
    names : sequence of str
        Without any, all stores.

    Raises
    ------
    UnknownStore
        If there is none of a name.
    """
    there = Bucket(url).folders("stores")
    for name in names:
        if not any(one.startswith(name) for one in there):
            raise UnknownStore(
                f"There is no store {name!r} in {clean_url(url)}, which holds "
                f"{format_values(there, str)}.",
                path=name, candidates=there,
            )  # fmt: skip
    chosen = [one for one in there if not names or one.startswith(tuple(names))]
    return [one for one in chosen if is_keyed_name(one)]
