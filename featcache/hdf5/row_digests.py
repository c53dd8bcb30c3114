"""Digests per row, which identify the intact rows of a damaged shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .row_dtype import Rows, row_dtype

DIGEST_BYTES = 16  # of SHA-256: enough that two different rows never have the same by chance


def row_digests(
    components: Mapping[str, Any],
    ids: NDArray[np.uint8],
    views: NDArray[np.int32],
    rows: Rows,
) -> NDArray[np.uint8]:
    """Return a digest of each row together with its spec, image id and view.

    Parameters
    ----------
    components : mapping
        Those of the store's spec, so that equal rows of different specs have other digests.
    ids : ndarray (n, 32), uint8
    views : ndarray (n,), int32
    rows : ndarray (n, width)
        Of the dtype that the components name.

    Returns
    -------
    ndarray (n, 16), uint8
        The first 16 bytes of SHA-256 over spec, id, view and values, little-endian.

    Examples
    --------
    >>> ids, views = np.zeros((2, 32), np.uint8), np.zeros(2, np.int32)
    >>> digests = row_digests({}, ids, views, np.array([[1.0], [2.0]], np.float32))
    >>> digests.shape, bool((digests[0] == digests[1]).all())
    ((2, 16), False)
    """
    spec = hashlib.sha256(json.dumps(components, sort_keys=True).encode())
    whose = np.column_stack([ids, np.ascontiguousarray(views, "<i4")[:, None].view("u1")])
    values = np.ascontiguousarray(rows, row_dtype(components))
    found = bytearray()
    for number in range(len(values)):
        one = spec.copy()
        one.update(whose[number])
        one.update(values[number])
        found += one.digest()[:DIGEST_BYTES]
    return np.frombuffer(bytes(found), np.uint8).reshape(len(values), DIGEST_BYTES)
