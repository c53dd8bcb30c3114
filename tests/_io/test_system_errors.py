"""Errors of the system say what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from featcache._io.system_errors import system_errors
from featcache.errors import StoreError


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EMFILE, "ulimit -n"), (errno.EIO, "check the disk")]
)
def test_the_advice_fits_the_error(number: int, advice: str) -> None:
    with pytest.raises(StoreError, match=advice), system_errors(Path("store")):
        raise OSError(number, os.strerror(number))
