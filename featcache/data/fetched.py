"""What a read of a URL gives: bytes and their version, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass

from .._io.wording import first_line
from ..errors import MissingExtra
from ..images.image_file import MAX_BYTES, BadImage
from .urls import without_secrets

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
TOTAL_SECONDS = 280.0  # below the time after which a decoder gives up
# A time of modification within so many seconds does not identify the content.
SETTLED_SECONDS = 3.0
# What errors of aiohttp mean; their own texts quote the answer of the server.
_REASONS = {
    "TooManyRedirects": "the server redirects without end",
    "ClientConnectorDNSError": "its host is unknown",
    "ClientConnectorError": "the server cannot be reached",
    "ServerDisconnectedError": "the server closed the connection",
    "ClientPayloadError": "the server's answer is incomplete",
    "ClientResponseError": "the server's answer is malformed",
    "RedirectClientError": "the server redirects to what is no URL of the web",
    "TimeoutError": "the server takes too long",  # of asyncio in Python 3.10
    "InvalidURL": "it is not a valid URL",
}


@dataclass(frozen=True)
class Fetched:
    """What a read found.

    Attributes
    ----------
    data : bytes or None
        None: unchanged, the version is the one that was known.
    version : str or None
        Identifies these bytes among those of the same URL; None if the server does not say.
    """

    data: bytes | None
    version: str | None


def checked_size(size: int) -> int:
    """Return a size in bytes; raise `BadImage` if it exceeds the limit."""
    if size > MAX_BYTES:
        raise failed(f"it has {size:,} bytes or more; the limit is {MAX_BYTES:,}")
    return size


def failed(reason: str) -> BadImage:
    """Return the error of an image that cannot be read now, and may be another time."""
    return BadImage(f"cannot be read: {reason}", lasting=False)


def bad_image(error: Exception, url: str) -> BadImage:
    """Return the reason why a URL cannot be read, without its secrets."""
    if isinstance(error, BadImage):
        return error
    if isinstance(error, MissingExtra):
        return failed(str(error))
    if isinstance(error, FileNotFoundError):
        return failed("it does not exist")
    if isinstance(error, PermissionError):
        return failed("access is denied")
    if isinstance(error, TimeoutError):
        return failed("the server takes too long")
    for kind in type(error).__mro__:
        if kind.__name__ in _REASONS:
            return failed(_REASONS[kind.__name__])
    return failed(without_secrets(first_line(error), url)[:200])
