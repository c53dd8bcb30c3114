"""Repeat a request to an object store whose failure may be temporary."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ..._io.logs import get_logger

log = get_logger(__name__)

T = TypeVar("T")

_ATTEMPTS = 12
_FIRST_WAIT, _MAX_WAIT = 0.25, 8.0
_SILENT_ATTEMPTS = 4  # some seconds
# No attempt begins later than this after the first one. A server that does not answer, as behind a
# broken connection, costs each attempt its whole timeout.
_PATIENCE = 60.0
# As s3fs translates "503 Slow Down", "500 Internal Error" and lost connections.
_ERRNOS = frozenset({
    errno.EBUSY, errno.EREMOTEIO, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
    errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH,
})  # fmt: skip
_STATUSES = frozenset({409, 429, 500, 502, 503, 504})
# Base classes of errors of botocore and aiohttp, which need not be installed.
_CLASSES = frozenset({"ConnectionError", "HTTPClientError", "ClientConnectionError",
                      "ClientPayloadError", "TimeoutError", "ResponseParserError"})  # fmt: skip


def retried(request: Callable[[], T]) -> T:
    """Call a function that sends a request, again if it fails in a way that may pass.

    Reading and listing change nothing, and an object is created only if it does not exist, so
    that none of them does more when it is repeated.

    Raises
    ------
    Exception
        The error of the last attempt.
    """
    started = time.monotonic()
    for attempt in range(_ATTEMPTS - 1):
        # Clients that were told to slow down together would come back together.
        wait = min(_MAX_WAIT, _FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1)
        try:
            return request()
        except Exception as error:
            if not is_temporary(error) or time.monotonic() + wait - started > _PATIENCE:
                raise
            if attempt == _SILENT_ATTEMPTS:  # a wrong address would look like a program that hangs
                log.warning(
                    "The object store did not answer %d requests (%s); trying again for up to %d "
                    "seconds.", attempt + 1, type(error).__name__, _PATIENCE,
                )  # fmt: skip
        time.sleep(wait)
    return request()


def is_temporary(error: Exception) -> bool:
    """Return whether another attempt may succeed: throttling, lost connections, server errors.

    Examples
    --------
    >>> is_temporary(ConnectionResetError()), is_temporary(PermissionError(errno.EPERM, "denied"))
    (True, False)
    """
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    if _CLASSES & {kind.__name__ for kind in type(error).__mro__}:
        return True
    response = getattr(error.__cause__, "response", None)  # of botocore
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    return isinstance(metadata, dict) and metadata.get("HTTPStatusCode") in _STATUSES
