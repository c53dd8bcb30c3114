"""Reading of URLs of web servers, with limits on time and size.

The only module that imports aiohttp.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Mapping
from typing import Any

from ..images.image_file import BadImage
from .fetched import (
    CONNECT_SECONDS,
    READ_SECONDS,
    SETTLED_SECONDS,
    TOTAL_SECONDS,
    Fetched,
    bad_image,
    checked_size,
    failed,
)
from .read_ahead import Gate, wait_async

RETRY_SECONDS = (0.3, 1.5)
_BUSY = frozenset({429, 500, 502, 503, 504})
_CHUNK = 1 << 18


async def get(system: Any, url: str, known: str | None, gate: Gate) -> Fetched:
    """Read a URL of HTTP, unless the server still has the known version."""
    for pause in (*RETRY_SECONDS, None):
        try:
            return await _get_once(system, url, known, gate)
        except BadImage:
            raise
        except Exception as error:
            if pause is None or not _passes(error):
                raise bad_image(error, url) from None  # its text may hold secrets
            await asyncio.sleep(pause)
    raise AssertionError("unreachable")


def _passes(error: Exception) -> bool:
    """Return whether a request that failed may succeed when it is repeated."""
    import aiohttp

    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)):
        return False
    return isinstance(error, (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, _Busy))


class _Busy(Exception):
    """The server asks to try again."""


async def _get_once(system: Any, url: str, known: str | None, gate: Gate) -> Fetched:
    import aiohttp

    session = await system.set_session()
    times = aiohttp.ClientTimeout(
        TOTAL_SECONDS,
        connect=2 * CONNECT_SECONDS,  # with the look-up of the host
        sock_connect=CONNECT_SECONDS,
        sock_read=READ_SECONDS,
    )
    # Content that is sent compressed could inflate to any size.
    headers = {"Accept-Encoding": "identity", **_condition(known)}
    options = {"timeout": times, "auto_decompress": False, **system.kwargs}
    async with session.get(system.encode_url(url), headers=headers, **options) as response:
        if known is not None and response.status == 304:
            return Fetched(None, known)
        if response.status in _BUSY:
            raise _Busy(f"the server answers with status {response.status}")
        if response.status != 200:
            raise failed(f"the server answers with status {response.status}")
        version = _http_version(response.headers)
        if known is not None and version == known:
            return Fetched(None, known)
        coding = response.headers.get("Content-Encoding", "identity").lower()
        if coding != "identity":
            raise failed(f"the server sends it compressed ({coding[:20]!r}), unasked")
        return Fetched(await _body(response, gate), version)


async def _body(response: Any, gate: Gate) -> bytes:
    """Return what a response holds, at most `MAX_BYTES`."""
    reserved = checked_size(response.content_length or 0)
    await wait_async(gate, reserved)
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        data += chunk
        if len(data) > reserved:  # sent without its length
            more = checked_size(len(data)) - reserved
            await wait_async(gate, more)
            reserved += more
    return bytes(data)


def _condition(known: str | None) -> dict[str, str]:
    """Return the headers that ask for content other than the known version."""
    kind, _, value = (known or "").partition(" ")
    if kind == "etag":
        return {"If-None-Match": value}
    if kind == "modified":
        return {"If-Modified-Since": value.rpartition(" ")[0]}
    return {}


def _http_version(headers: Mapping[str, str]) -> str | None:
    """Return what identifies the content of a response among those of its URL, if anything."""
    etag = headers.get("ETag", "")
    if etag.startswith('"') and _is_header(etag):
        return f"etag {etag}"
    modified, length = headers.get("Last-Modified", ""), headers.get("Content-Length", "")
    try:
        age = _seconds(headers.get("Date", "")) - _seconds(modified)
    except (TypeError, ValueError, OverflowError):
        return None
    # The time counts seconds: within one, a file may change again.
    if age < SETTLED_SECONDS or not length.isdecimal() or not _is_header(modified):
        return None
    return f"modified {modified} {length}"


def _is_header(value: str) -> bool:
    return len(value) <= 1000 and value.isascii() and value.isprintable()


def _seconds(date: str) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp()
