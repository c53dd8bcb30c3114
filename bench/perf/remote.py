"""Images behind URLs of a server that takes 50 ms per request, compared with local files."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featcache.data.dataset import Dataset
from featcache.datasets.load import load_dataset
from featcache.extraction.extract import extract

from .extraction import draw_photos
from .timing import format_spread, markdown_table, median

IMAGES = 2000
SECONDS_PER_REQUEST = 0.05
_SERVER = """
import asyncio, pathlib, sys

folder = pathlib.Path(sys.argv[1])
files = {"/" + str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.jpg")}


async def answer(reader, writer):
    try:
        while True:
            request = await reader.readuntil(b"\\r\\n\\r\\n")
            name = request.split(b" ", 2)[1].decode()
            await asyncio.sleep(float(sys.argv[2]))
            head = 'HTTP/1.1 200 OK\\r\\nETag: "%s"\\r\\nContent-Length: %d\\r\\n\\r\\n'
            writer.write((head % (name, len(files[name]))).encode() + files[name])
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
"""


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a record for local files and one for URLs; their runs alternate."""
    folder = draw_photos(options.folder, max(100, round(IMAGES * options.scale) // 10 * 10))
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.jpg"))]
    command = [sys.executable, "-c", _SERVER, str(folder), str(SECONDS_PER_REQUEST)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}"
            places = {
                "local files": [str(folder / name) for name in names],
                "URLs, 50 ms per request": [f"{url}/{name}" for name in names],
            }
            _run(places["local files"][:50])  # loads Keras and the backbone
            runs: dict[str, list[dict[str, float]]] = {place: [] for place in places}
            for _ in range(options.repeats):
                for place, paths in places.items():
                    runs[place].append(_run(paths))
        finally:
            server.kill()
    return [{"place": place, "images": len(names), "runs": runs[place]} for place in places]


def _run(paths: Sequence[str]) -> dict[str, float]:
    """Return images per second when ids are found, and when embeddings are computed."""
    with tempfile.TemporaryDirectory(prefix="featcache-perf-") as cache:
        dataset = load_dataset(paths)
        started = time.perf_counter()
        found = dataset.source.identify(Path(cache) / "index", 2)
        identified = time.perf_counter()
        ids = [str(one.image_id) for one in found]
        known = Dataset(dataset.paths, ids=ids, images=dataset.images)
        extract("pocket", known, cache_dir=cache, progress=False)
        ended = time.perf_counter()
    return {
        "identify": len(paths) / (identified - started),
        "compute": len(paths) / (ended - identified),
    }


def describe(records: list[dict[str, Any]]) -> str:
    """Return a table in Markdown."""
    lines = [
        "Images per second with `pocket` and photos of 375 x 500 pixels from a server on the same "
        "machine that waits 50 ms before each answer. Target: at least 0.9 of the throughput with "
        "local files.",
        "",
    ]
    local = median([run["compute"] for run in records[0]["runs"]])
    rows: list[list[object]] = [["images", "ids found per s", "computed per s", "of local files"]]
    for record in records:
        computed = [run["compute"] for run in record["runs"]]
        rows.append([
            record["place"], format_spread([run["identify"] for run in record["runs"]]),
            format_spread(computed), f"{median(computed) / local:.2f}",
        ])  # fmt: skip
    return "\n".join([*lines, *markdown_table(*rows)])
