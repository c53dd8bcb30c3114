"""Images behind URLs: read once, known by their content, secrets kept, servers not trusted."""

import contextlib
import io
import json
import logging
import os
import pickle
import socket
import time

import numpy as np
import pandas as pd
import pytest
from photo_server import photo_server, send

import featcache
from conftest import photo
from featcache.data import fetched, remote_http
from featcache.data.remote import RemoteSource
from featcache.data.urls import clean_url, memo_key, without_secrets
from featcache.errors import DatasetError, DatasetNotFound, MissingExtra, NoUsableImages

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture
def server():
    with photo_server() as served:
        yield served


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote_http, "RETRY_SECONDS", (0.01, 0.01))


@pytest.fixture
def images(tmp_path):
    """Return the content of six photos by name, and their paths."""
    paths = [photo(tmp_path / "photos" / f"{i}.png", i) for i in range(6)]
    return {path.name: path.read_bytes() for path in paths}, [str(path) for path in paths]


@pytest.fixture
def urls(server, images):
    server.files.update({f"/{name}": data for name, data in images[0].items()})
    return [f"{server.url}/{name}" for name in images[0]]


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def extract(data, tmp_path, **options):
    return featcache.extract(
        "pocket", data, cache_dir=tmp_path / "cache", progress=False, **options
    )


def identify(data, tmp_path):
    dataset = featcache.load_dataset(data)
    return dataset.source.identify(tmp_path / "index", 4)


def test_urls_give_the_features_of_the_same_files_and_a_second_run_reads_nothing(
    server, urls, images, tmp_path
):
    server.delay = 0.02
    local = extract(images[1], tmp_path, labels=list("abcabc"))
    remote = extract(urls, tmp_path, labels=list("abcabc"))
    assert remote.summary.computed == 0
    assert remote.ids == local.ids
    assert remote.paths == urls
    np.testing.assert_array_equal(remote.X[:], local.X[:])
    assert server.bodies == 6
    again = extract(urls[::-1], tmp_path)
    assert again.ids == local.ids[::-1]
    assert server.bodies == 6
    assert server.most_at_once >= 3
    assert all(request.startswith("GET") for request in server.requests)
    server.files["/3.png"] = images[0]["5.png"]
    changed = extract(urls, tmp_path)
    assert changed.ids == [*local.ids[:3], local.ids[5], *local.ids[4:]]
    assert server.bodies == 7


def test_images_are_computed_from_urls(urls, images, tmp_path):
    remote = extract(urls, tmp_path)
    assert remote.summary.computed == 6
    local = featcache.extract("pocket", images[1], cache_dir=tmp_path / "other", progress=False)
    np.testing.assert_array_equal(remote.X[:], local.X[:])
    dataset = featcache.load_dataset(urls)
    assert dataset.image(0).size == (24, 20)
    assert pickle.loads(pickle.dumps(dataset.source)).read(1) == images[0]["1.png"]


def test_without_a_version_an_image_is_read_again(server, urls, tmp_path):
    server.etags = False
    first = identify(urls[:2], tmp_path)
    assert identify(urls[:2], tmp_path) == first
    assert server.bodies == 4


@pytest.mark.parametrize(
    ("headers", "bodies"),
    [
        ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, 1),
        ({"ETag": 'W/"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, 1),
        ({"ETag": 'W/"1"'}, 2),
        ({"ETag": '"1"'}, 1),
        ({"Last-Modified": "nonsense"}, 2),
        ({"Last-Modified": "NOW"}, 2),
    ],
)
def test_what_identifies_a_version(server, images, tmp_path, headers, bodies):
    """A server that ignores the conditions, and answers with headers that say the same."""
    data = images[0]["0.png"]
    read = []

    def answer(handler):
        sent = {k: handler.date_time_string() if v == "NOW" else v for k, v in headers.items()}
        send(handler, 200, data, sent)
        read.append(1)

    server.answers["/a.png"] = answer
    first = identify([f"{server.url}/a.png"], tmp_path)
    memo = list((tmp_path / "index").glob("remote-*")) if (tmp_path / "index").exists() else []
    assert len(memo) == (bodies == 1)
    assert identify([f"{server.url}/a.png"], tmp_path) == first


def test_a_table_mixes_urls_and_files(server, urls, images, tmp_path):
    (tmp_path / "t.csv").write_text(
        f"image_url;label\n{urls[0]};cat\nphotos/1.png;dog\n{urls[2]};cat\n"
    )
    features = extract(tmp_path / "t.csv", tmp_path)
    assert features.ids == extract(images[1][:3], tmp_path).ids
    assert features.paths == [urls[0], images[1][1], urls[2]]
    assert features.y.tolist() == [0, 1, 0]
    frame = pd.DataFrame({"url": urls, "label": list("xyzxyz")})
    assert extract(frame, tmp_path).classes == ["x", "y", "z"]


def test_one_image_and_predictions(urls, images, tmp_path, capsys):
    import heads
    from featcache.cli import main

    assert extract(urls[0], tmp_path).ids == extract(images[1][:1], tmp_path).ids
    features = extract(urls, tmp_path, labels=list("ababab"))
    model = featcache.make_bundle(features, heads.LogisticHead(C=1.0).fit(features))
    model.save(tmp_path / "model.featcache")
    arguments = ["predict", str(tmp_path / "model.featcache"), "--cache-dir", str(tmp_path / "c")]
    signed = urls[0].replace("http://", "http://me:secret@") + "?X-Amz-Signature=c0ffee"
    assert main([*arguments, signed]) == 0
    out = capsys.readouterr()
    assert out.out.startswith(urls[0])
    assert "secret" not in out.out + out.err
    assert "c0ffee" not in out.out + out.err


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_off(handler):
    send(handler, 200, b"x", {"Content-Length": "100"})
    hang_up(handler)


BROKEN = {
    "missing": (lambda h: send(h, 404, b""), "status 404"),
    "forbidden": (lambda h: send(h, 403, b""), "status 403"),
    "busy": (lambda h: send(h, 503, b""), "status 503"),
    "huge": (lambda h: send(h, 200, b"x", {"Content-Length": str(10**12)}), "the limit is"),
    "short": (cut_off, "answer is incomplete"),
    "compressed": (lambda h: send(h, 200, b"x", {"Content-Encoding": "gzip"}), "compressed"),
    "loop": (lambda h: send(h, 302, b"", {"Location": h.path}), "redirects without end"),
    "local": (lambda h: send(h, 302, b"", {"Location": "file:///etc/passwd"}), "no URL of the web"),
    "garbage": (lambda h: h.wfile.write(b"\0\1\2\r\n\r\n" * 9), "malformed"),
    "headers": (lambda h: send(h, 200, b"x", {"X-Long": "y" * 100_000}), "malformed"),
    "closed": (hang_up, "closed the connection"),
    "text": (lambda h: send(h, 200, b"<html>"), "not an image"),
    "empty": (lambda h: send(h, 200, b""), "empty"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_bad_answers_are_quarantined_and_the_others_have_their_rows(server, urls, tmp_path, caplog):
    for name, (answer, _) in BROKEN.items():
        server.answers[f"/{name}"] = answer
    bad = [f"{server.url}/{name}?token=hush-hush" for name in BROKEN]
    dead = ["http://me:hush-hush@127.0.0.1:9/a.png", "http://[::bad/a.png"]
    with caplog.at_level(logging.DEBUG):
        features = extract([urls[0], *bad, *dead, urls[1]], tmp_path, labels=range(len(bad) + 4))
    assert features.positions.tolist() == [0, len(bad) + 3]
    reasons = {one.path.rpartition("/")[2]: one.reason for one in features.quarantined}
    for name, (_, reason) in BROKEN.items():
        assert reason in reasons[name], (name, reasons[name])
    assert len(features.quarantined) == len(bad) + 2
    everything = (
        repr(features.quarantined)
        + caplog.text
        + "".join(
            path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()
        )
    )
    assert "hush" not in everything
    server.answers = {f"/{name}": lambda h: send(h, 200, server.files["/2.png"]) for name in BROKEN}
    assert len(extract([urls[0], *bad, urls[1]], tmp_path)) == len(bad) + 2  # tried again


def test_more_than_was_declared_ends_at_the_limit(server, tmp_path, monkeypatch):
    sent = []

    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while len(sent) < 10_000:
                handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent.append(1)

    monkeypatch.setattr(fetched, "MAX_BYTES", 3_000_000)
    server.answers["/a.png"] = endless
    (found,) = identify([f"{server.url}/a.png"], tmp_path)
    assert "the limit is 3,000,000" in found.reason
    assert len(sent) < 2000


def test_a_server_that_does_not_answer_is_left(server, urls, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_http, "READ_SECONDS", 0.3)
    server.answers["/slow"] = lambda handler: time.sleep(3)
    started = time.perf_counter()
    found = identify([f"{server.url}/slow", urls[0]], tmp_path)
    assert "takes too long" in found[0].reason
    assert found[1].image_id
    assert time.perf_counter() - started < 2.5


def test_a_temporary_failure_is_tried_again(server, images, tmp_path):
    answers = [503, 429]

    def answer(handler):
        if answers:
            send(handler, answers.pop(), b"")
        else:
            send(handler, 200, images[0]["0.png"])

    server.answers["/a.png"] = answer
    assert identify([f"{server.url}/a.png"], tmp_path)[0].image_id


def test_content_that_changes_between_id_and_read_gives_no_row(server, urls, images, tmp_path):
    calls = []

    def answer(handler):
        calls.append(1)
        send(handler, 200, images[0][f"{len(calls)}.png"])

    server.answers["/a.png"] = answer
    features = extract([f"{server.url}/a.png", urls[0]], tmp_path)
    assert features.positions.tolist() == [1]
    assert "was replaced" in features.quarantined[0].reason


def test_user_and_password_are_sent_and_never_shown(server, urls, tmp_path):
    secret = urls[0].replace("http://", "http://me:pa55word@")
    features = extract([secret], tmp_path)
    assert features.paths == [urls[0]]
    assert server.authorization[0].startswith("Basic ")
    assert "pa55word" not in "".join(map(str, tmp_path.rglob("*")))


@pytest.mark.parametrize(
    ("url", "name", "remembered"),
    [
        ("https://h/a.jpg", "https://h/a.jpg", True),
        ("HTTPS://h/a%20b.jpg?w=9&h=8", "https://h/a%20b.jpg?w=9&h=8", True),
        ("https://u:p@h:8080/a.jpg", "https://h:8080/a.jpg", True),
        ("https://h/a.jpg?X-Amz-Signature=ab&X-Amz-Credential=cd", "https://h/a.jpg", True),
        ("https://h/a.jpg?w=1&sv=2&sig=abc", "https://h/a.jpg?w=1", True),
        ("https://h/a.jpg?token=abc", "https://h/a.jpg", False),
        ("https://h/a.jpg?abc", "https://h/a.jpg", False),
        ("https://h/a.jpg?w=" + "x" * 40, "https://h/a.jpg", False),
        ("https://h/a.jpg#access_token=abc", "https://h/a.jpg", True),
        ("s3://key:secret@bucket/a b?c#d@e.jpg", "s3://bucket/a b?c#d@e.jpg", True),
        ("zip://a.jpg::https://u:p@h/x.zip?sig=1", "zip://a.jpg::https://h/x.zip", True),
        ("https://[bad/a.jpg", "https://(malformed)", False),
    ],
)
def test_names_and_keys_hold_no_secrets(url, name, remembered):
    assert clean_url(url) == name
    assert (memo_key(url) is not None) == remembered
    message = without_secrets(f"cannot connect to {url}, or u:p", "https://u1:p22@h/")
    assert "abc" not in message
    assert "secret" not in message


def test_urls_with_other_secrets_are_not_confused():
    assert memo_key("https://h/a?w=1") != memo_key("https://h/a?w=2")
    assert memo_key("https://h/a?Signature=1") == memo_key("https://h/a?Signature=2")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("reference://x::https://h/refs.json", "a kind that is not opened"),
        ("simplecache::https://h/a.jpg", None),
        ("git://h/a.jpg", "a kind that is not opened"),
        ("zip://a.jpg", "does not say which archive"),
        ("zip://a.jpg::reference://b", "a kind that is not opened"),
        ("https://h/photos/", "cannot be listed"),
        ("https://h/table.csv", r"is a table or an archive\. Download it\. The"),
        ("https://h/a.zip", r"Download it, or pass its images: zip://\*\*::https://h/a\.zip"),
        ("memory://nowhere/*.jpg", "No image was found"),
    ],
)
def test_urls_that_are_not_opened(url, message, memory):
    if message is None:
        with pytest.raises(DatasetNotFound):  # no URL, but a path
            featcache.load_dataset(url)
        return
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(url)


def test_a_folder_of_a_file_system_has_classes_and_split(memory, images, tmp_path):
    for i, (name, data) in enumerate(images[0].items()):
        memory.pipe(f"/b/train/{'cat' if i % 2 else 'dog'}/{name}", data)
    memory.pipe("/b/train/cat/notes.txt", b"")
    memory.pipe("/b/train/cat/.DS_Store", b"")
    dataset = featcache.load_dataset("memory://b")
    assert dataset.labels == ["cat"] * 3 + ["dog"] * 3
    assert set(dataset.split) == {"train"}
    assert dataset.name == "b"
    assert dataset.ignored == ["memory:///b/train/cat/notes.txt"] or len(dataset.ignored) == 1
    features = extract("memory://b/", tmp_path)
    assert sorted(features.ids) == sorted(extract(images[1], tmp_path).ids)
    pattern = featcache.load_dataset("memory://b/train/dog/*.png")
    assert len(pattern) == 3
    assert pattern.labels is None
    memory.pipe("/b/loose.png", b"")
    with pytest.raises(DatasetError, match="beside class folders"):
        featcache.load_dataset("memory://b")


def test_a_member_of_an_archive(memory, images, tmp_path):
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in images[0].items():
            archive.writestr(f"photos/{name}", data)
    memory.pipe("/x.zip", out.getvalue())
    (tmp_path / "x.zip").write_bytes(out.getvalue())
    expected = extract(images[1], tmp_path).ids
    for archive in ("memory://x.zip", str(tmp_path / "x.zip")):
        members = [f"zip://photos/{name}::{archive}" for name in images[0]]
        assert extract(members, tmp_path).ids == expected
        assert extract(f"zip://photos/*.png::{archive}", tmp_path).ids == expected
    bad = extract([members[0], f"zip://photos/none.png::{archive}"], tmp_path)
    assert bad.quarantined[0].reason == "cannot be read: it does not exist"


def test_a_lost_or_planted_index_is_harmless(server, urls, tmp_path):
    first = identify(urls, tmp_path)
    (file,) = (tmp_path / "index").glob("remote-*.json")
    for text in ("", "[]", json.dumps({"checksum": "x", "value": 1})):
        file.write_text(text)
        assert identify(urls, tmp_path) == first
    assert server.bodies == 24


def test_a_missing_library_is_named(monkeypatch):
    def missing(scheme):
        raise ImportError("Install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(MissingExtra, match="gcsfs"):
        featcache.load_dataset(["gs://bucket/a.jpg"])
    with pytest.raises(MissingExtra, match=r"\[s3\]"):
        featcache.load_dataset("s3://bucket/a.jpg")


def test_no_usable_url_is_an_error(server, tmp_path):
    with pytest.raises(NoUsableImages, match="status 404"):
        extract([f"{server.url}/none.png"], tmp_path)


def test_a_source_of_urls_takes_rows(urls):
    source = RemoteSource(urls).take([2, 0])
    assert list(source.names) == [urls[2], urls[0]]


def test_what_is_no_regular_file_is_not_waited_for(memory, images, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    memory.pipe("/no.zip", b"PK\5\6" + b"\xff" * 40)
    urls = [
        f"file://{tmp_path}/pipe", "file:///dev/zero", f"zip://a.png::{tmp_path}/pipe",
        "zip://a.png::memory://no.zip", "zip://a.png::memory://none.zip", f"file://{images[1][0]}",
    ]  # fmt: skip
    found = identify(urls, tmp_path)
    reasons = [one.reason for one in found]
    assert reasons[0] == reasons[1] == "is not a regular file"
    assert reasons[2] == reasons[4] == "cannot be read: it does not exist"
    assert reasons[3].startswith("cannot be read: ")
    assert found[5].image_id


def test_hostile_urls_are_quarantined_one_by_one(tmp_path):
    urls = [
        "http://", "http:///x", "https://[::1", "http://127.0.0.1:99999/a", "http://\x00/a",
        "http://" + "a" * 300 + ".invalid/", "http://user@:80/", "http://\ud800/",
        "memory://\ud800", "zip://a::zip://b::/etc/passwd", "zip://../../etc/passwd::/etc/hostname",
    ]  # fmt: skip
    found = identify(urls, tmp_path)
    assert all(one.image_id is None and one.reason for one in found)
