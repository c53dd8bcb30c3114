"""Machines on one computer: a network namespace each, behind a switch that delays and drops frames.

The switch is a process with a TAP device in each namespace, since few kernels have ``netem``. All
addresses are those of the namespaces, 10.77.0.x, and no interface is made outside of them.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000
_MTU = 9000


def reason_to_skip() -> str | None:
    """Return why there can be no namespaces here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is missing"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened"
    probe = f"fcn{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True).returncode:
        return "this system does not let us add network namespaces"
    subprocess.run(["ip", "netns", "delete", probe], check=True)
    return None


class Network:
    """Namespaces that reach each other through a switch, until it is closed.

    Parameters
    ----------
    names : sequence of str
        Names of the machines.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._namespaces = {name: f"fcn{os.getpid()}-{name}" for name in names}
        self._switch: subprocess.Popen[str] | None = None

    def __enter__(self) -> Network:
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def _build(self) -> None:
        for namespace in self._namespaces.values():
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        self._switch = subprocess.Popen(
            [sys.executable, __file__, *self._namespaces.values()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._switch.stdout is not None
        assert self._switch.stdout.readline() == "ready\n"
        for number, (name, namespace) in enumerate(self._namespaces.items()):
            mac = f"02:00:00:00:00:{number:02x}"
            _ip("-n", namespace, "link", "set", "eth0", "address", mac, "mtu", str(_MTU))
            _ip("-n", namespace, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")

    def close(self) -> None:
        """Remove the switch and the namespaces; their processes must have ended."""
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait()
            for pipe in (self._switch.stdin, self._switch.stdout):
                if pipe is not None:
                    pipe.close()
        for namespace in self._namespaces.values():
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True)

    def address(self, name: str) -> str:
        """Return the address of a machine."""
        return f"10.77.0.{10 + self.names.index(name)}"

    def prefix(self, name: str) -> list[str]:
        """Return what a command begins with that runs on a machine."""
        return ["ip", "netns", "exec", self._namespaces[name]]

    def set_round_trip(self, seconds: float) -> None:
        """Set the time that a frame and its answer take together."""
        self._tell("delay", str(seconds / 2))

    @contextlib.contextmanager
    def partitioned(self, name: str) -> Iterator[None]:
        """Context manager in which all frames of a machine are lost, without a word."""
        self._tell("drop", str(self.names.index(name)))
        try:
            yield
        finally:
            self._tell("pass", str(self.names.index(name)))

    def _tell(self, *words: str) -> None:
        assert self._switch is not None
        assert self._switch.stdin is not None
        print(*words, file=self._switch.stdin, flush=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class _Switch:
    """Forwards frames between TAP devices after a while."""

    def __init__(self, devices: Sequence[int]) -> None:
        self._devices = list(devices)
        self._delay = 0.0
        self._dropped: set[int] = set()
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def run(self, commands: Any) -> None:
        """Forward frames until the commands end."""
        poll = select.poll()
        for device in (*self._devices, commands.fileno()):
            poll.register(device, select.POLLIN)
        while True:
            wait = None
            if self._waiting:
                wait = max(0.0, 1000 * (self._waiting[0][0] - time.monotonic()))
            for ready, _ in poll.poll(wait):
                if ready == commands.fileno():
                    line = os.read(ready, 4096).decode()
                    if not line:
                        return
                    for command in line.splitlines():
                        self._obey(*command.split())
                else:
                    self._receive(self._devices.index(ready))
            self._send()

    def _obey(self, command: str, value: str) -> None:
        if command == "delay":
            self._delay = float(value)
        elif command == "drop":
            self._dropped.add(int(value))
        else:
            self._dropped.discard(int(value))

    def _receive(self, source: int) -> None:
        frame = os.read(self._devices[source], _MTU + 100)
        if source in self._dropped:
            return
        due = time.monotonic() + self._delay
        known = frame[:5] == b"\x02\0\0\0\0" and frame[5] < len(self._devices)
        for target in [frame[5]] if known else range(len(self._devices)):
            if target != source and target not in self._dropped:
                self._count += 1
                heapq.heappush(self._waiting, (due, self._count, target, frame))

    def _send(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, target, frame = heapq.heappop(self._waiting)
            if target not in self._dropped:
                with contextlib.suppress(OSError):  # the device is down, or its queue is full
                    os.write(self._devices[target], frame)


def _open_device(namespace: str) -> int:
    """Create the TAP device eth0 in a namespace, which lives as long as it is open."""
    opened: list[int] = []

    def enter() -> None:  # a thread has a namespace of its own
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}", "rb") as file:
            if libc.setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _TAP_WITHOUT_HEADER))
        opened.append(device)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return opened[0]


def main() -> None:
    """Run the switch."""
    switch = _Switch([_open_device(namespace) for namespace in sys.argv[1:]])
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        switch.run(sys.stdin)


if __name__ == "__main__":
    main()
