"""A web server on the loopback interface, whose files, answers and delays a test chooses."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class PhotoServer:
    """Serves `files` with strong ETags; counts requests and bodies.

    Attributes
    ----------
    files : dict of str to bytes
        Content by path.
    answers : dict of str to callable
        What to do instead with the request for a path; given the handler.
    etags : bool
        Whether files have ETags, and a time of modification.
    delay : float
        Seconds before each answer.
    requests : list of str
        Method, path and query of each request.
    bodies : int
        Number of answers with content.
    most_at_once : int
        The most requests that were answered at the same time.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.etags, self.delay = True, 0.0
        self.requests: list[str] = []
        self.authorization: list[str | None] = []
        self.bodies = self.most_at_once = self._at_once = 0
        self.url = ""
        self._lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append(f"{handler.command} {handler.path}")
            self.authorization.append(handler.headers.get("Authorization"))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            time.sleep(self.delay)
            path = handler.path.partition("?")[0]
            if path in self.answers:
                self.answers[path](handler)
            elif path in self.files:
                self._send(handler, self.files[path])
            else:
                send(handler, 404, b"")
        finally:
            with self._lock:
                self._at_once -= 1

    def _send(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        headers = {}
        if self.etags:
            headers["ETag"] = f'"{hashlib.md5(data).hexdigest()}"'
            if handler.headers.get("If-None-Match") == headers["ETag"]:
                send(handler, 304, b"", headers)
                return
        self.bodies += 1
        send(handler, 200, data, headers)


def send(handler, status, data, headers=None):
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    if status != 304:
        with contextlib.suppress(OSError):
            handler.wfile.write(data)


@contextlib.contextmanager
def photo_server():
    """Context manager with a running `PhotoServer`."""
    served = PhotoServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            served.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
