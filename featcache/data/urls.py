"""URLs of images: which are accepted, and what they are called without their secrets."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import unquote_plus, urlsplit, urlunsplit

from ..errors import DatasetError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# Kinds that lead to bytes and nothing else. Others of fsspec run what a file says: "reference://"
# renders the templates in it, "simplecache://" writes to the disk.
SCHEMES = frozenset({
    "abfs", "abfss", "adl", "az", "file", "ftp", "gcs", "gs", "hf", "http", "https", "memory",
    "oss", "s3", "s3a", "sftp", "ssh", "webhdfs", "zip",
})  # fmt: skip
HTTP = frozenset({"http", "https"})
# Parameters of signed URLs of S3, Google Cloud, Azure and CloudFront: they change with each
# signature, and lead to the same bytes.
_SIGNATURE = re.compile(
    r"x-amz-.*|x-goog-.*|awsaccesskeyid|googleaccessid|signature|expires|key-pair-id|policy|"
    r"sig|sv|se|sp|sr|st|spr|skoid|sktid|skt|ske|sks|skv",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r".*(token|key|secret|passw|pwd|auth|cred|sess|jwt|hmac|hash|sign|code|ticket).*",
    re.IGNORECASE,
)
URL_REASON = "is a URL, not a file; download the image and give the path of the file"
_LONG = 32  # a value of so many characters may be a secret whatever it is called


def is_url(path: Any) -> bool:
    """Return whether a value is a URL, which would otherwise be treated as a local path."""
    return isinstance(path, str) and _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL, in lower case."""
    match = _URL.match(url)
    return "" if match is None else match[1].lower()


def check_url(url: str) -> str:
    """Return a URL whose scheme is one of `SCHEMES`.

    Raises
    ------
    DatasetError
    """
    inner, *outer = url.split("::", 1) if scheme_of(url) == "zip" else [url]
    if scheme_of(inner) not in SCHEMES:
        raise DatasetError(
            f"{clean_url(url)} is a URL of a kind that is not opened. Accepted: "
            f"{', '.join(f'{scheme}://' for scheme in sorted(SCHEMES))}.",
            received=scheme_of(url),
            expected=sorted(SCHEMES),
        )
    if scheme_of(inner) == "zip" and not outer:
        raise DatasetError(
            f"{clean_url(url)} does not say which archive: zip://photo.jpg::s3://bucket/photos.zip.",
            received=scheme_of(url),
        )
    if outer:
        check_url(outer[0] if is_url(outer[0]) else f"file://{outer[0]}")
    return url


def clean_url(url: str) -> str:
    """Return a URL without user, password, signatures and other parameters that may be secret.

    Examples
    --------
    >>> clean_url("https://me:pw@example.org/a.jpg?width=9&X-Amz-Signature=c0ffee&token=abc#top")
    'https://example.org/a.jpg?width=9'
    """
    return "::".join(_clean(part)[0] for part in url.split("::"))


def memo_key(url: str) -> str | None:
    """Return the name under which the id of an image is remembered; None if that is unsafe.

    Parameters of a signature are no part of it, so that the image of a URL that was signed again
    is recognised. Another secret parameter may choose the image, and must not be written down.
    """
    parts = [_clean(part) for part in url.split("::")]
    if any(secret for _, secret in parts):
        return None
    return hashlib.sha256(
        "::".join(name for name, _ in parts).encode("utf-8", "replace")
    ).hexdigest()


def secrets_of(url: str) -> list[str]:
    """Return the parts of a URL that no message may contain."""
    found = []
    for part in url.split("::"):
        user, at, _ = _netloc(part).rpartition("@")
        found += [user, *user.split(":")] if at else []
        query = part.partition("?")[2].partition("#")[0]
        for parameter in _parameters(query):
            if _hidden(*parameter):
                found += [parameter[2], parameter[0].partition("=")[2]]
    return sorted({text for text in found if len(text) > 2}, key=len, reverse=True)


def without_secrets(message: str, url: str) -> str:
    """Return a message of a library without the secrets of a URL, nor those of other URLs."""
    message = re.sub(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>)]+", lambda m: clean_url(m[0]), message)
    for secret in secrets_of(url):
        message = message.replace(secret, "***")
    return message


def _netloc(url: str) -> str:
    return re.split(r"[/?#]", _URL.sub("", url, count=1), maxsplit=1)[0] if is_url(url) else ""


def _parameters(query: str) -> list[tuple[str, str, str]]:
    """Return the parameters of a query: as written, name and value."""
    found = []
    for text in filter(None, query.split("&")):
        name, _, value = text.partition("=")
        found.append((text, unquote_plus(name), unquote_plus(value)))
    return found


def _hidden(text: str, name: str, value: str) -> bool:
    named = _SIGNATURE.fullmatch(name) or _SECRET.fullmatch(name)
    # Text without a name may be anything.
    return named is not None or len(value) >= _LONG or "=" not in text


def _clean(url: str) -> tuple[str, bool]:
    """Return a part of a URL without secrets, and whether any was more than a signature."""
    scheme = scheme_of(url)
    start, _, rest = url.partition("://")
    if scheme and "@" in _netloc(url):
        rest = rest[len(_netloc(url).rpartition("@")[0]) + 1 :]
    if scheme not in HTTP:  # "?" and "#" are characters of a key in an object store
        return f"{start}://{rest}" if scheme else url, False
    try:
        split = urlsplit(f"{start}://{rest}")
    except ValueError:  # a malformed host
        return f"{scheme}://(malformed)", True
    parameters = _parameters(split.query)
    kept = [text for text, *pair in parameters if not _hidden(text, *pair)]
    hidden = [pair[0] for text, *pair in parameters if _hidden(text, *pair)]
    secret = any(_SIGNATURE.fullmatch(name) is None for name in hidden)
    return urlunsplit((scheme, split.netloc, split.path, "&".join(kept), "")), secret
