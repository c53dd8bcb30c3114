"""What the process that inspects HDF5 files and the one that asks it say to each other.

The question is one line of JSON. Answers begin with a tag and two numbers: `READ`, offset and
count, asks for bytes of the file, which come back as they are; `DONE`, with the lengths of a
JSON text and of the bytes behind it, is the end.
"""

from __future__ import annotations

import struct
from typing import Literal

FileKind = Literal["shard", "weights"]

NUMBERS = struct.Struct("<cQQ")
READ, DONE = b"R", b"D"
MOST_READ_BYTES = 1 << 16
MOST_REPLY_BYTES = 1 << 20  # and four times the file's bytes
IDLE_STATUS = 75  # the exit status of a child that nobody asked for a while
MEMORY_STATUS = 76
