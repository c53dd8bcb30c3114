"""What a disk may hold after the power fails: a record of every change, and what may survive.

Every system call that changes the store's folder is recorded while it happens for real. A
power loss after any of them keeps what was synced; of the rest, each change may be there or
not, in any order that the names allow, and the bytes of an unsynced file may end, or turn to
zeros, at any multiple of 512.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import featcache._io.atomic
import featcache.store.lease
import featcache.store.maintenance

SECTOR = 512


@dataclass
class Event:
    """A change of the folder, or an acknowledgement to the caller."""

    kind: str
    name: str = ""
    other: str = ""
    data: bytes = b""
    numbers: tuple[int, ...] = ()


@dataclass
class Recorder:
    """The changes of one folder, in order."""

    folder: Path
    events: list[Event] = field(default_factory=list)

    def acknowledge(self, *numbers: int) -> None:
        self.events.append(Event("ack", numbers=numbers))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Record what `featcache` asks of the system inside the folder."""
        write_new, sync, replace = (
            featcache._io.atomic._write_new,
            featcache._io.atomic.sync_folder,
            os.replace,
        )
        unlink = Path.unlink

        def recorded_write(path: Path, data: bytes, durable: bool) -> None:
            write_new(path, data, durable)
            self.events.append(Event("write", path.name, data=bytes(data)))
            if durable:
                self.events.append(Event("sync file", path.name))

        def recorded_sync(path: Path) -> None:
            sync(path)
            self.events.append(Event("sync folder"))

        def recorded_replace(source: Any, target: Any) -> None:
            replace(source, target)
            self.events.append(Event("rename", Path(source).name, Path(target).name))

        def recorded_unlink(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok)
            self.events.append(Event("unlink", path.name))

        featcache._io.atomic._write_new = recorded_write
        featcache._io.atomic.sync_folder = recorded_sync
        os.replace = recorded_replace  # type: ignore[assignment]
        Path.unlink = recorded_unlink  # type: ignore[method-assign]
        try:
            yield
        finally:
            featcache._io.atomic._write_new = write_new
            featcache._io.atomic.sync_folder = sync
            os.replace = replace
            Path.unlink = unlink  # type: ignore[method-assign]


def after_power_loss(
    events: list[Event], generator: random.Random
) -> tuple[dict[str, bytes], set[int]]:
    """Return the files that may be there after the power failed behind these events.

    Returns
    -------
    (dict of str to bytes, set of int)
        Name -> content, and the numbers that were acknowledged before.
    """
    last_sync = max((i for i, e in enumerate(events) if e.kind == "sync folder"), default=-1)
    contents: dict[int, tuple[bytes, bool]] = {}  # file -> bytes, whether synced
    names: dict[str, int] = {}
    acknowledged: set[int] = set()
    for number, event in enumerate(events):
        if event.kind == "ack":
            acknowledged |= set(event.numbers)
            continue
        if event.kind == "sync file":
            # The same file under whatever name it has; syncing concerns its bytes.
            for i in range(number - 1, -1, -1):
                if events[i].kind == "write" and events[i].name == event.name:
                    contents[i] = (contents[i][0], True)
                    break
            continue
        if event.kind == "write":
            contents[number] = (event.data, False)
        # Names synced with the folder are there; later changes of names may be or not.
        if number > last_sync and generator.random() < 0.5:
            continue
        if event.kind == "write":
            names[event.name] = number
        elif event.kind == "rename" and event.name in names:
            names[event.other] = names.pop(event.name)
        elif event.kind == "rename":
            # The new name reached the disk though the old one never did.
            source = next(
                i for i in range(number - 1, -1, -1)
                if events[i].kind == "write" and events[i].name == event.name
            )  # fmt: skip
            names[event.other] = source
        elif event.kind == "unlink":
            names.pop(event.name, None)
    return {name: _bytes(*contents[i], generator) for name, i in names.items()}, acknowledged


def _bytes(data: bytes, synced: bool, generator: random.Random) -> bytes:
    if synced:
        return data
    choice = generator.randrange(4)
    sectors = range(0, len(data) + SECTOR, SECTOR)
    cut = generator.choice(sectors)
    if choice == 0:
        return data
    if choice == 1:
        return data[:cut]
    if choice == 2:
        return data[:cut] + bytes(len(data) - min(cut, len(data)))
    torn = bytearray(data)
    for start in sectors:
        if generator.random() < 0.5:
            stop = min(start + SECTOR, len(data))
            torn[start:stop] = bytes(max(0, stop - start))
    return bytes(torn)
