"""Protocol between a process and its child that inspects HDF5 files.

A request is one line of JSON. A reply begins with a tag and two integers: `READ`, offset and
count, requests raw bytes of the file; `DONE`, with the length of a JSON text and of the bytes
that follow it, ends the request.
"""

from __future__ import annotations

import struct
from typing import Literal

FileKind = Literal["shard", "weights"]

HEADER = struct.Struct("<cQQ")
READ, DONE = b"R", b"D"
MAX_READ_BYTES = 1 << 16
MAX_REPLY_BYTES = 1 << 20  # and four times the file's bytes
IDLE_STATUS = 75  # exit status of a child that was idle for too long
MEMORY_STATUS = 76
