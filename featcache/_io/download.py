"""Downloads that resume after a broken connection and are verified by their hash.

The only module that imports pooch.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any

from ..errors import DownloadFailed
from .logs import get_logger
from .progress import progress_bar
from .wording import first_line

log = get_logger(__name__)

_CONNECT_SECONDS = 6.0
_ATTEMPTS = 5
_BLOCK_BYTES = 1 << 16  # the most that a broken connection makes us download twice
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


def retrieve(
    url: str, known_hash: str | None, name: str, folder: Path, progress: bool | None = None
) -> Path:
    """Download a file unless it is already present, and return its path.

    A partial download is kept in ``<name>.part``, and the next call resumes it.

    Parameters
    ----------
    url : str
        ``http`` or ``https``.
    known_hash : str or None
        ``"md5:..."`` or ``"sha256:..."``. A present file is used only if its hash is this one;
        with None the file is always downloaded.
    name : str
        Name of the file.
    folder : Path
        Folder of the file.
    progress : bool, optional
        Show a progress bar. Default: in a terminal and in a notebook.

    Returns
    -------
    Path

    Raises
    ------
    DownloadFailed
        Within about 10 seconds if the host cannot be reached; or if the server or the disk
        refuses, or the content has another hash. Carries `reason`.
    """
    import pooch

    target = folder / name
    if target.is_file() and known_hash and pooch.hashes.hash_matches(target, known_hash):
        return target
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80}.get(parts.scheme, 443)
    reason = _connection_error(parts.hostname or "", port)
    if reason is None:
        download = _ResumingDownloader(folder / f"{name}.part", progress)
        try:
            return Path(
                pooch.retrieve(url, known_hash, fname=name, path=folder, downloader=download)
            )
        except Exception as error:  # requests and pooch raise a wide range
            reason = first_line(error)
    raise DownloadFailed(f"{url} cannot be downloaded ({reason}).", url=url, reason=reason)


class _ResumingDownloader:
    """A downloader for `pooch.retrieve` that resumes a partial download."""

    def __init__(self, part: Path, progress: bool | None) -> None:
        self.part, self.progress = part, progress

    def __call__(
        self, fname: str, action: Any, pooch: object, *, check_only: bool | None = False
    ) -> None:
        """Download an address to a file; pooch gives these parameters their names."""
        import requests

        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._get(fname):
                    # Not durable: a present file is used only if its hash is the known one.
                    os.replace(self.part, action)
                    return
                reason = "the connection was closed early"
            except requests.HTTPError:
                raise  # the server refused: another attempt would get the same answer
            except requests.RequestException as error:
                reason = str(error)
            if attempt < _ATTEMPTS:
                log.info("%s: %s; resuming", self.part.stem, reason)
                time.sleep(min(2**attempt, 10) / 4)
        raise OSError(f"gave up after {_ATTEMPTS} attempts: {reason}; run again to resume")

    def _get(self, url: str) -> bool:
        """Download the missing bytes; return whether the file is complete."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        # Otherwise a server may compress the file, and lengths would not be those of the file.
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, stream=True, timeout=(5, 60), headers=headers) as answer:
            if answer.status_code == 416:  # no bytes are missing, or the file has changed
                whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if whole == str(have):
                    return True
                self.part.unlink()
                return False
            answer.raise_for_status()
            have = have if answer.status_code == 206 else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else 0
            with (
                open(self.part, "ab" if have else "wb") as file,
                progress_bar(total, self.part.stem, "B", self.progress) as bar,
            ):
                bar.update(have)
                for block in answer.iter_content(_BLOCK_BYTES):
                    file.write(block)
                    bar.update(len(block))
        return not length or self.part.stat().st_size >= total


def _connection_error(host: str, port: int) -> str | None:
    """Return why a host cannot be reached, or None if it can.

    Takes a few seconds at most; a name lookup without a limit may take minutes.
    """
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            if not any(os.environ.get(name) for name in _PROXIES):
                with contextlib.closing(
                    socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
                ):
                    pass
            outcome.append(None)
        except OSError as error:
            outcome.append(f"{host} cannot be reached: {error.strerror or error}")

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS + 1)
    return outcome[0] if outcome else f"{host} did not answer within {_CONNECT_SECONDS:.0f} s"
