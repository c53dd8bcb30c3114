"""The memory that reading and decoding takes, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from featcache.images.image_file import content_id

_CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from featcache.images.image_file import BadImage, content_id
from featcache.images import decode as images
from featcache.images.limits import MemoryBudget

budget = MemoryBudget(int(sys.argv[1])) if sys.argv[1] != "0" else MemoryBudget()

def peak():
    return next(int(s.split()[1]) // 1024 for s in open('/proc/self/status') if 'VmHWM' in s)

def one(pair):
    try:
        images.load_pixels(pair[0], (8, 8), "stretch", pair[1], budget=budget)
    except BadImage as bad:
        return bad.reason

before = peak()
pairs = list(zip(sys.argv[2::2], sys.argv[3::2]))
with ThreadPoolExecutor(len(pairs)) as pool:
    reasons = list(pool.map(one, pairs))
print(peak() - before, reasons)
"""


def peak_of(files: list[Path], total: int = 0) -> tuple[int, str]:
    """MiB that reading and decoding files at once takes on top, and the reasons given.

    `total` bytes are shared by the threads; 0 means what the package allows.
    """
    named = [part for f in files for part in (str(f), content_id(f.read_bytes()))]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(total), *named],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, reasons = done.stdout.split(" ", 1)
    return int(taken), reasons
