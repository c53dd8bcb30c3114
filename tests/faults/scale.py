"""How often a fault is tried: a few times in `make test`, thousands in `make test-faults`."""

from __future__ import annotations

import os

FULL = os.environ.get("FEATCACHE_FAULTS") == "full"


def times(short: int, full: int) -> int:
    return full if FULL else short
