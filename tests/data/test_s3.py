"""Images in a real object store: SeaweedFS with its S3 interface, on the loopback interface."""

import numpy as np
import pytest

import featcache
from conftest import photo
from featcache.errors import DatasetError, DatasetNotFound

pytestmark = pytest.mark.s3


def extract(data, tmp_path, **options):
    return featcache.extract(
        "pocket", data, cache_dir=tmp_path / "cache", progress=False, **options
    )


def count_reads(monkeypatch):
    import s3fs

    calls = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self, method, *args, **options):
        calls.append(method)
        return await call(self, method, *args, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return calls


def test_a_bucket_is_a_folder_of_classes(s3_files, tmp_path, monkeypatch):
    paths = [
        photo(tmp_path / f"p/{'cat' if i % 2 else 'dog'}/a b+{i}#?é.png", i) for i in range(40)
    ]
    for path in paths:
        s3_files.pipe(f"photos/set/{path.parent.name}/{path.name}", path.read_bytes())
    calls = count_reads(monkeypatch)
    local = extract(tmp_path / "p", tmp_path)
    remote = extract("s3://photos/set/", tmp_path)
    assert remote.ids == local.ids
    assert remote.classes == ["cat", "dog"]
    assert remote.summary.computed == 0
    assert calls.count("get_object") == 40
    calls.clear()
    again = extract("s3://photos/set", tmp_path)
    np.testing.assert_array_equal(again.X[:], local.X[:])
    assert calls.count("get_object") == 0
    s3_files.pipe(f"photos/set/dog/{paths[0].name}", paths[2].read_bytes())
    changed = extract(again.paths, tmp_path)
    assert calls.count("get_object") == 1
    assert (
        changed.ids[again.paths.index(f"s3://photos/set/dog/{paths[0].name}")]
        == local.ids[local.paths.index(str(paths[2]))]
    )
    assert len(featcache.load_dataset("s3://photos/set/cat/*.png")) == 20
    fresh = featcache.extract(
        "pocket", again.paths[:8], cache_dir=tmp_path / "other", progress=False
    )
    assert fresh.summary.computed == 8


def test_what_is_missing_or_no_image_is_named(s3_files, tmp_path):
    good = photo(tmp_path / "x.png", 1)
    s3_files.pipe("photos/x.png", good.read_bytes())
    s3_files.pipe("photos/empty.png", b"")
    urls = [f"s3://photos/{name}" for name in ("none.png", "x.png", "empty.png", "set")]
    features = extract([*urls, "s3://no-such-bucket/x.png"], tmp_path)
    assert features.positions.tolist() == [1]
    reasons = [one.reason for one in features.quarantined]
    assert reasons[0] == "cannot be read: it does not exist"
    assert "empty" in reasons[1]
    assert not any("hush" in reason for reason in reasons)
    with pytest.raises((DatasetError, DatasetNotFound), match=r"No image was found|cannot be"):
        featcache.load_dataset("s3://photos/no/such/*.png")


def test_an_archive_in_a_bucket_is_read_in_place(s3_files, tmp_path):
    import io
    import zipfile

    paths = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
    s3_files.pipe("photos/x.zip", out.getvalue())
    found = extract("zip://*.png::s3://photos/x.zip", tmp_path)
    assert found.ids == extract(paths, tmp_path).ids
