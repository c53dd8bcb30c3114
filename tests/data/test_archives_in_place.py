"""Archives of images: the same images as in a folder, read in place, within limits."""

import io
import json
import os
import struct
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featcache
from featcache.data import zip_directory
from featcache.data.archive import ZipArchive, expand_braces
from featcache.data.sources import no_limit
from featcache.errors import DatasetError, DatasetNotFound, NoUsableImages
from featcache.images.image_file import BadImage

DEFLATED, STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED


def extract(data, cache, **options):
    return featcache.extract("pocket", data, cache_dir=cache, progress=False, **options)


def make_zip(path, members, compression=DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def make_tar(path, members, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def members_below(root, prefix=""):
    return [(prefix + str(path.relative_to(root)), path.read_bytes())
            for path in sorted(root.rglob("*.png"))]  # fmt: skip


@pytest.fixture
def members(photos):
    return members_below(photos)


@pytest.mark.parametrize(
    "make",
    [
        lambda path, members: make_zip(path / "a.zip", members),
        lambda path, members: make_zip(path / "a.ZIP", members, STORED),
        lambda path, members: make_tar(path / "a.tar", members, format=tarfile.GNU_FORMAT),
        lambda path, members: make_tar(path / "a.tar", members, format=tarfile.PAX_FORMAT),
    ],
)
@pytest.mark.parametrize("prefix", ["", "photos-v2/"])
def test_an_archive_is_the_same_data_set_as_its_folder(tmp_path, photos, make, prefix):
    first = extract(photos, tmp_path)
    members = members_below(photos, prefix)
    members += [("__MACOSX/._a.png", b"1"), ("README.md", b"2"), ("cat/.hidden.png", b"3")]
    path = make(tmp_path, members)
    same = extract(path, tmp_path)
    assert same.summary.computed == 0
    assert same.ids == first.ids
    assert same.classes == ["cat", "dog"]
    np.testing.assert_array_equal(same.y, first.y)
    assert same.paths[0] == f"{path}/{prefix}cat/00.png"
    dataset = featcache.load_dataset(str(path))
    assert [os.path.basename(name) for name in dataset.ignored] == ["README.md", ".hidden.png"]
    assert sorted(tmp_path.rglob("*.png")) == sorted(photos.rglob("*.png"))


def test_split_folders_become_the_split(tmp_path, members):
    both = [(f"{part}/{name}", data) for part in ("train", "val") for name, data in members]
    dataset = featcache.load_dataset(make_zip(tmp_path / "a.zip", both))
    assert dataset.split == ["train"] * 12 + ["validation"] * 12
    assert dataset.classes == ["cat", "dog"]


def test_members_are_read_in_any_order_by_several_threads(tmp_path, members):
    for path in (make_zip(tmp_path / "a.zip", members), make_tar(tmp_path / "a.tar", members)):
        source = featcache.load_dataset(path).source
        wrong = []

        def check(seed, source=source, wrong=wrong):
            order = np.random.default_rng(seed).permutation(12).tolist()
            wrong.extend(i for i in order if source.read(i) != members[i][1])

        threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_names_that_lead_elsewhere_are_names_alone(tmp_path, members):
    data = members[0][1]
    names = ["/etc/a.png", "../../etc/a.png", "etc/../c\x1b[2J.png", "etc/a.png", "etc/a.png"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        zipped = make_zip(tmp_path / "a.zip", [(name, data) for name in names])
    for path in (
        zipped,
        make_tar(tmp_path / "a.tar", [(name, data) for name in names]),
    ):
        features = extract(path, tmp_path)
        assert features.classes == ["etc"]
        assert len(features) == 5
    assert not (tmp_path.parent / "a.png").exists()


def test_links_and_devices_are_no_images(tmp_path, members):
    path = make_tar(tmp_path / "a.tar", members)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("cat/link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert len(featcache.load_dataset(path)) == 12
    info = zipfile.ZipInfo("cat/link.png")
    info.external_attr = 0o120777 << 16
    assert len(featcache.load_dataset(make_zip(tmp_path / "a.zip", [*members, (info, b"/")]))) == 12


def patched(path, name, **changes):
    """Change fields of a member's entry in the directory of a zip archive."""
    data = bytearray(path.read_bytes())
    at = data.index(name.encode(), data.index(b"PK\1\2")) - 46
    places = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "packed": (20, "<L"),
              "size": (24, "<L"), "start": (42, "<L")}  # fmt: skip
    for field, value in changes.items():
        offset, form = places[field]
        struct.pack_into(form, data, at + offset, value)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"flags": 1}, "is encrypted"),
        ({"method": 12}, "compressed by bzip2"),
        ({"method": 77}, "number 77"),
        ({"crc": 1}, "checksum"),
        ({"size": 100}, "100 bytes that are declared"),
        ({"size": 30_000_000}, "would unpack"),
        ({"size": 2**30}, "limit is"),
        ({"packed": 9}, "declared"),
        ({"packed": 10**8}, "cut off"),
        ({"start": 7}, "no header"),
        ({"start": 10**9}, "cut off"),
        ({"method": 0}, "two sizes differ"),
    ],
)
def test_a_bad_member_is_named_and_the_others_have_their_rows(tmp_path, members, changes, reason):
    path = patched(make_zip(tmp_path / "a.zip", members), "cat/01.png", **changes)
    found = featcache.load_dataset(path).source.identify(tmp_path, 2)
    assert [i for i, one in enumerate(found) if one.image_id is None] == [1]
    assert reason in found[1].reason
    if "crc" in changes:
        features = extract(path, tmp_path)
        assert features.positions.tolist() == [0, *range(2, 12)]
        assert features.quarantined[0].path.endswith("cat/01.png")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, members, monkeypatch):
    monkeypatch.setattr("featcache.data.archive._FREE_BYTES", 10**5)
    big = make_zip(tmp_path / "a.zip", [(f"{i}.png", bytes(10**6)) for i in range(9)])
    with pytest.raises(DatasetError, match=r"would unpack to 9,000,000"):
        featcache.load_dataset(big)


def test_an_archive_that_changes_gives_no_wrong_row(tmp_path, members):
    for make, kind in ((make_zip, "zip"), (make_tar, "tar")):
        path = make(tmp_path / f"a.{kind}", members)
        dataset = featcache.load_dataset(path)
        found = [one.image_id for one in dataset.source.identify(tmp_path / "files", 2)]
        make(
            path, [(key, data) for (key, _), (_, data) in zip(members, members[::-1], strict=True)]
        )
        named = featcache.Dataset(dataset.paths, dataset.labels, ids=found, images=dataset.images)
        with pytest.raises(NoUsableImages, match=r"replaced|damaged|cut off"):
            extract(named, tmp_path / kind)
        make(path, members)
        assert len(extract(path, tmp_path / kind)) == 12  # nothing was said of their content
        path.unlink()
        with pytest.raises(NoUsableImages, match="No such file"):
            extract(named, tmp_path / "other")


def test_ids_of_an_earlier_archive_are_forgotten(tmp_path, members):
    path = make_tar(tmp_path / "a.tar", members)
    os.utime(path, ns=(10**18, 10**18))
    dataset = featcache.load_dataset(path)
    container = dataset.source._containers[0]
    container.listed_at = container.state.ctime_ns + 10**10
    first = [one.image_id for one in dataset.source.identify(tmp_path / "files", 2)]
    assert [one.image_id for one in dataset.source.identify(tmp_path / "files", 2)] == first
    make_tar(path, [*members[6:], *members[:6]])
    found = featcache.load_dataset(path).source.identify(tmp_path / "files", 2)
    assert [one.image_id for one in found] == first[6:] + first[:6]
    # Listed before, identified after: nothing may be remembered of the mixture.
    stale = dataset.source.identify(tmp_path / "files", 2)
    again = featcache.load_dataset(path).source.identify(tmp_path / "files", 2)
    assert [one.image_id for one in again] == first[6:] + first[:6] != stale


@pytest.mark.parametrize("damage", ["empty", "text", "half", "tail", "directory"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_is_refused_in_a_sentence(tmp_path, members, damage, kind):
    make = {"zip": make_zip, "tar": make_tar}[kind]
    path = make(tmp_path / f"a.{kind}", members)
    data = path.read_bytes()
    path.write_bytes({
        "empty": b"", "text": b"no archive" * 200, "half": data[: len(data) // 2 + 7],
        "tail": data[:-5] if kind == "zip" else data[:900],
        "directory": data.replace(b"PK\1\2", b"PK99").replace(b"ustar", b"usbar"),
    }[damage])  # fmt: skip
    with pytest.raises(DatasetError, match="archive"):
        featcache.load_dataset(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_directory_raises_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    make_zip(path, [("a.png", b"abc" * 50), ("b.png", b"d")])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        dataset = featcache.load_dataset(path)
    except DatasetError:
        return
    for position in range(len(dataset)):
        try:
            dataset.source.read(position)
        except BadImage:
            pass


def test_a_large_zip_and_one_behind_a_program_are_read(tmp_path, members, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 5)
    path = make_zip(tmp_path / "a.zip", members)
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    monkeypatch.setattr(zip_directory, "_WINDOW", 300_000)
    assert [ZipArchive(path).read(i, no_limit) for i in range(12)] == [data for _, data in members]


def test_too_many_members_are_refused(tmp_path, members, monkeypatch):
    monkeypatch.setattr(zip_directory, "MAX_ENTRIES", 5)
    monkeypatch.setattr("featcache.data.archive.MAX_ENTRIES", 5)
    for path in (make_zip(tmp_path / "a.zip", members), make_tar(tmp_path / "a.tar", members)):
        with pytest.raises(DatasetError, match="members"):
            featcache.load_dataset(path)


def test_shards_with_labels_are_one_data_set(tmp_path, members):
    for shard in range(3):
        samples = []
        for i in range(4 * shard, 4 * shard + 4):
            key = f"{i:06d}"
            samples += [(f"{key}.png", members[i][1]), (f"{key}.mask.png", b"1"),
                        (f"{key}.cls", str(i % 3).encode())]  # fmt: skip
        make_tar(tmp_path / f"shard-{shard:03d}.tar", samples)
    dataset = featcache.load_dataset(str(tmp_path / "shard-{000..002}.tar"))
    assert dataset.labels == [i % 3 for i in range(12)]
    assert [dataset.source.read(i) for i in range(12)] == [data for _, data in members]
    assert dataset.paths[4] == f"{tmp_path}/shard-001.tar/000004.png"
    listed = featcache.load_dataset(sorted(tmp_path.glob("*.tar")))
    assert listed.paths == dataset.paths
    with pytest.raises(DatasetNotFound, match=r"shard-003.tar cannot be opened"):
        featcache.load_dataset(str(tmp_path / "shard-{000..003}.tar"))


def test_labels_of_shards_in_json_and_text(tmp_path, members):
    samples = [
        ("0.png", members[0][1]), ("0.json", json.dumps({"label": "pug", "cls": 1}).encode()),
        ("1.png", members[1][1]), ("1.txt", b"beagle\n"),
        ("2.png", members[2][1]), ("2.txt", b"a long\ndescription"),
        ("3.png", members[3][1]), ("3.json", b"[" * 10**5),
    ]  # fmt: skip
    dataset = featcache.load_dataset(make_tar(tmp_path / "a.tar", samples))
    assert dataset.labels == ["pug", "beagle", None, None]
    numbers = [("0.png", members[0][1]), ("0.json", b'{"label": 2.0}')]
    assert featcache.load_dataset(make_tar(tmp_path / "n.tar", numbers)).labels == [2]
    # Boxes of objects, for example: the class is the folder.
    boxes = [(name.replace("png", "txt"), b"0 0.5 0.5") for name, _ in members]
    dataset = featcache.load_dataset(make_tar(tmp_path / "b.tar", [*members, *boxes]))
    assert dataset.classes == ["cat", "dog"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.tar.gz", "compressed as a whole"),
        ("a-{000000..999999}.tar", "stands for 1,000,000 files"),
        ("a-{2..1}.tar", "stands for 0 files"),
    ],
)
def test_what_is_not_read_is_refused_in_a_sentence(tmp_path, members, name, message):
    if "{" not in name:
        make_tar(tmp_path / name, members, "w:gz")
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(str(tmp_path / name))


def test_archives_without_images_and_with_labels_are_refused(tmp_path, members):
    with pytest.raises(DatasetError, match=r"No image was found.*1 .txt"):
        featcache.load_dataset(make_zip(tmp_path / "a.zip", [("a.txt", b"1")]))
    path = make_zip(tmp_path / "b.zip", members)
    with pytest.raises(DatasetError, match="bring their own"):
        featcache.load_dataset([path], labels=[1] * 12)


def test_ranges_of_names_are_expanded():
    assert expand_braces("a{1..2}{8..9}b") == ["a18b", "a19b", "a28b", "a29b"]
    assert expand_braces("a{x}b") == ["a{x}b"]
