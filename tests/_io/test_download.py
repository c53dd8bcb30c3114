"""Downloads resume where they were cut off, and what is not the right file is not kept."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archives
from featcache._io.download import retrieve
from featcache.datasets import fetch
from featcache.errors import DownloadFailed

DATA = np.random.default_rng(0).bytes(3 * 2**20)
HASH = "sha256:" + hashlib.sha256(DATA).hexdigest()


class _Server(ThreadingHTTPServer):
    """Serves `files`; closes the connection after `cut_at` bytes, `cuts` times."""

    files: dict[str, bytes]
    cuts = 0
    cut_at = 1_000_000
    ranges = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path.lstrip("/"))
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and self.server.ranges:
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
        else:
            start = 0
            self.send_response(200)
        body = data[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: self.server.cut_at]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    server = _Server({"file.bin": DATA})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_broken_connection_is_taken_up_where_it_broke(server: _Server, tmp_path: Path) -> None:
    server.cuts = 2
    path = retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert path.read_bytes() == DATA
    starts = [int((asked or "=0-").partition("=")[2][:-1]) for asked in server.asked]
    assert starts[0] == 0
    assert 900_000 < starts[1] <= 1_000_000
    assert 1_800_000 < starts[2] <= 2_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_a_later_call_goes_on_too(server: _Server, tmp_path: Path) -> None:
    server.cuts, server.cut_at = 5, 200_000
    with pytest.raises(DownloadFailed, match="run again to resume"):
        retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    have = (tmp_path / "file.bin.part").stat().st_size
    assert have > 500_000
    retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert server.asked[-1] == f"bytes={have}-"
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_server_without_ranges_starts_anew(server: _Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = 1, False
    retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_complete_part_is_not_fetched_again(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(DATA)
    retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_a_part_of_another_file_is_dropped(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin.part").write_bytes(DATA + b"more")
    retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == DATA


def test_a_file_with_another_hash_is_not_kept(server: _Server, tmp_path: Path) -> None:
    server.files["file.bin"] = DATA[:-1] + b"x"
    with pytest.raises(DownloadFailed, match="hash"):
        retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_already_is_not_asked_for(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(DATA)
    retrieve(f"{server.address}/file.bin", HASH, "file.bin", tmp_path)
    assert server.asked == []


def test_a_missing_file_fails_at_once(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="404"):
        retrieve(f"{server.address}/other.bin", HASH, "other.bin", tmp_path)
    assert len(server.asked) == 1


def test_a_host_that_refuses_fails_within_seconds(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="cannot be reached") as raised:
        retrieve("http://127.0.0.1:9/file.bin", HASH, "file.bin", tmp_path)
    assert raised.value.url == "http://127.0.0.1:9/file.bin"


def test_a_data_set_comes_from_a_mirror(server: _Server, tmp_path: Path) -> None:
    folder = archives.write(tmp_path / "a", archives.stanford_files())
    server.files = {p.name: p.read_bytes() for p in folder.iterdir()}
    server.cuts, server.cut_at = 1, 5000
    home = fetch("stanford-dogs", source=server.address, any_hash=True)
    assert (home / "examples.csv").is_file()
    assert len(server.asked) == 4
    assert not (home.parents[1] / "archives" / "stanford-dogs").exists()
