"""The fields that changes and snapshots have besides those of a manifest."""

from __future__ import annotations

import json
import re
from typing import Any

from ..._io.hashes import json_hash
from ...errors import StoreWriteError
from ..manifest import MAX_BYTES, Manifest


def encode_fields(manifest: Manifest, **more: object) -> bytes:
    """Return the bytes of a manifest with further fields, which its checksum covers.

    Raises
    ------
    StoreWriteError
        If they are more than a reader accepts: nobody could open the store any more.
    """
    body = {**json.loads(manifest.encode()), **more}
    del body["checksum"]
    data = json.dumps({**body, "checksum": json_hash(body)}, indent=1, sort_keys=True).encode()
    if len(data) > MAX_BYTES:
        raise StoreWriteError(
            f"A list of shards of {manifest.spec.folder} would have {len(data):,} bytes, and "
            f"readers accept {MAX_BYTES:,}. Nothing was changed. Use another prefix of the bucket "
            "for further images."
        )
    return data


def digest_in(value: object) -> str:
    """Return a field that must be a SHA-256; raise ValueError if it is not."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"{str(value)[:40]!r} is not a SHA-256")
    return value


def time_in(value: Any) -> float:
    """Return a field that must be a time in seconds; raise ValueError if it is not."""
    if not 0 <= float(value) < 1e12:  # one that is infinite would forbid all changes
        raise ValueError(f"{str(value)[:40]!r} is not a time")
    return float(value)
