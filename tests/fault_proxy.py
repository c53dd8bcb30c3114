"""A proxy before an object store, on the loopback interface, that fails as a network does.

What happens to which request follows from a seed. ``FaultProxy(server).fail_next("lost", 1)`` lets
the next request reach the server, and loses its answer.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ERRORS = {
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
    "too_many": (429, "TooManyRequests", "Too many requests."),
    "internal": (500, "InternalError", "We encountered an internal error. Please try again."),
    "bad_gateway": (502, "BadGateway", "The gateway has lost the answer."),  # of a request done
}
# The request does not reach the server: an error in its place, or a closed connection.
UNSENT = ("slow_down", "too_many", "internal", "reset")
# The server does what was asked, and the client does not learn of it.
SENT = ("bad_gateway", "lost", "truncated")
KINDS = (*UNSENT, *SENT, "short", "delay", "stale")


@dataclass
class _Script:
    """A fault for some of the next requests whose method and path have a text in them."""

    kind: str
    count: int
    match: str


class FaultProxy:
    """A proxy that forwards requests, or does not.

    Parameters
    ----------
    target : (str, int)
        Address of the server.
    rates : mapping of str to float
        Probability of each of `KINDS`. ``short`` sends half of a body as if that were all of it;
        ``stale`` repeats the answer to the first listing of a folder.
    seed : int
    delay : float
        Seconds that a request with a ``delay`` waits.
    """

    def __init__(
        self,
        target: tuple[str, int],
        rates: Mapping[str, float] | None = None,
        seed: int = 0,
        delay: float = 0.5,
    ) -> None:
        self.target, self.rates, self.delay = target, dict(rates or {}), delay
        assert set(self.rates) <= set(KINDS)
        self.counts: Counter[str] = Counter()
        self.requests = 0
        self.listings: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._scripts: list[_Script] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[FaultProxy]:
        """Context manager in which the proxy takes requests."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def fail_next(self, kind: str, count: int, match: str = "") -> None:
        """Give a fault to the next requests that have a text in "METHOD /path?query"."""
        assert kind in KINDS
        with self._lock:
            self._scripts.append(_Script(kind, count, match))

    def choose(self, request: str) -> str | None:
        """Return the fault of a request."""
        with self._lock:
            self.requests += 1
            for script in self._scripts:
                if script.count > 0 and script.match in request:
                    script.count -= 1
                    return script.kind
            drawn = self._random.random()
            for kind, rate in self.rates.items():
                drawn -= rate
                if drawn < 0:
                    return kind
            return None


class _ConnectionLost(Exception):
    """The connection of the client is to be reset."""


class _Server(ThreadingHTTPServer):
    """A server that resets the connections of requests that end with an exception."""

    daemon_threads = True
    request_queue_size = 128
    proxy: FaultProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError):
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the farewell of TCP


class _Handler(BaseHTTPRequestHandler):
    """Forwards a request, with the fault that the proxy chooses for it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None: ...

    def _handle(self) -> None:
        proxy: FaultProxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = proxy.choose(f"{self.command} {self.path}")
        if kind is not None:
            proxy.counts[kind] += 1
        if kind == "delay":
            time.sleep(proxy.delay)
        if kind == "reset":
            raise _ConnectionLost
        if kind in UNSENT:
            self._answer_error(kind)
        else:
            self._forward(proxy, body, kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def _forward(self, proxy: FaultProxy, body: bytes, kind: str | None) -> None:
        try:
            status, headers, answer = self._ask(proxy.target, body)
        except OSError:  # the server is down
            raise _ConnectionLost from None
        if self.command == "GET" and "list-type=" in self.path:
            first = proxy.listings.setdefault(self.path, (status, headers, answer))
            if kind == "stale":
                status, headers, answer = first
        if kind == "lost":
            raise _ConnectionLost
        if kind == "bad_gateway":
            self._answer_error(kind)
        else:
            if kind == "short":
                answer = answer[: len(answer) // 2]
                headers.pop("Content-Range", None)
            self._answer(status, headers, answer, truncated=kind == "truncated")

    def _ask(self, target: tuple[str, int], body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(*target, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in _OF_A_CONNECTION}
            return answer.status, kept, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: Mapping[str, str], body: bytes, *, truncated: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has gone
            if truncated:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                raise _ConnectionLost
            if self.command != "HEAD":
                self.wfile.write(body)

    def _answer_error(self, kind: str) -> None:
        status, code, message = _ERRORS[kind]
        text = (
            f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        )
        self._answer(status, {"Content-Type": "application/xml"}, text.encode())


_OF_A_CONNECTION = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "trailer"}
