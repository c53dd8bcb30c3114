"""Published data sets: checked, unpacked safely, read as whole photos or as boxes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archives
from featcache import extract, load_dataset
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.cli import main
from featcache.datasets import fetch, fetched
from featcache.datasets.archives import unpack
from featcache.errors import (
    DatasetError,
    DatasetNotFound,
    InvalidRequest,
    StoreWriteError,
    UnsafeArchive,
)
from featcache.images.decode import load_image, resize


@pytest.fixture
def dogs(tmp_path: Path) -> Path:
    """Archives in the layout of Stanford Dogs: 3 breeds, 18 photos, 21 boxes."""
    return archives.write(tmp_path / "archives", archives.stanford_files())


@pytest.fixture
def fetched_dogs(dogs: Path) -> Path:
    return fetch("stanford-dogs", source=dogs, any_hash=True)


def nothing_was_kept() -> bool:
    folder = cache_folder() / "datasets"
    return not folder.exists() or not any(folder.iterdir())


def test_each_photo_is_an_example_with_a_name_for_people(fetched_dogs: Path) -> None:
    dataset = load_dataset("stanford-dogs")
    assert (dataset.name, len(dataset), dataset.crop) == ("Stanford Dogs", 18, "whole")
    assert dataset.classes == ["Afghan hound", "Chihuahua", "Standard poodle"]
    assert [list(dataset.split or []).count(part) for part in ("train", "test")] == [12, 6]
    assert all(Path(path).is_file() for path in dataset.paths)
    # The lists decide, not the names: numbers 4 and 5 are for the test.
    parts = zip(dataset.paths, dataset.split or [], strict=True)
    assert {Path(path).stem[-1] for path, part in parts if part == "test"} == {"4", "5"}


def test_each_box_is_an_example_of_its_photo(fetched_dogs: Path) -> None:
    dataset = load_dataset("stanford-dogs", crop="box")
    assert (len(dataset), len(set(dataset.paths)), dataset.crop) == (21, 18, "box")
    pairs = zip(dataset.paths, dataset.boxes or [], strict=True)
    assert [box for path, box in pairs if path.endswith("_1.jpg")] == [
        (5, 4, 40, 40),
        (30, 10, 59, 43),
    ] * 3
    wide = load_dataset("stanford-dogs", crop="box", margin=0.2)
    assert ((wide.boxes or [])[0], wide.crop) == ((-2, -3, 47, 47), "box+0.2")


def test_the_reference_runs_split_holds_out_whole_photos(fetched_dogs: Path) -> None:
    dataset = fetched.load("stanford-dogs", crop="box", split="90/10")
    parts: dict[str, set[str]] = {"train": set(), "test": set()}
    for path, part in zip(dataset.paths, dataset.split or [], strict=True):
        parts[part].add(path)
    assert not parts["train"] & parts["test"]
    assert len(parts["test"]) == 3
    assert fetched.load("stanford-dogs", split=None).split is None


def test_a_boxs_embedding_is_that_of_the_cut_out_pixels(
    fetched_dogs: Path, tiny_model: Any
) -> None:
    features = extract(tiny_model, "stanford-dogs", crop="box")
    assert len(features) == 21
    assert len(set(features.example_ids)) == 21
    assert len(set(features.ids)) == 18
    dataset = load_dataset("stanford-dogs", crop="box")
    pixels = np.stack(
        [
            resize(load_image(p).crop(b), (16, 16))
            for p, b in zip(dataset.paths, dataset.boxes or [], strict=True)
            if b is not None
        ]
    )
    expected = tiny_model.predict(pixels.astype("float32"), verbose=0)
    assert np.allclose(np.asarray(features.X), expected, rtol=1e-4, atol=1e-4)
    # Two boxes of a photo never fall on two sides.
    train, test = features.split(test_size=0.3, random_state=1)
    assert not set(train.ids) & set(test.ids)
    frame = features.to_frame()
    assert frame["box"].tolist() == features.boxes


def test_the_crop_and_its_margin_are_part_of_the_key(fetched_dogs: Path, tiny_model: Any) -> None:
    whole = extract(tiny_model, "stanford-dogs")
    boxes = extract(tiny_model, "stanford-dogs", crop="box")
    wide = extract(tiny_model, "stanford-dogs", crop="box", margin=0.1)
    assert len({f.spec.key for f in (whole, boxes, wide)}) == 3
    assert [f.summary.computed for f in (whole, boxes, wide)] == [18, 21, 21]
    assert boxes.spec.resize == "box-stretch-bilinear"
    assert extract(tiny_model, "stanford-dogs", crop="box").summary.computed == 0
    assert len(list(stores_folder(cache_folder()).iterdir())) == 3


def test_a_box_outside_its_photo_is_quarantined_and_shifts_no_row(
    tmp_path: Path, tiny_model: Any
) -> None:
    files = archives.stanford_files()
    name = f"Annotation/{archives.BREEDS[0]}/{archives.BREEDS[0][:9]}_0"
    files["annotation.tar"][name] = archives.annotation([(70, 0, 90, 20)])
    fetch("stanford-dogs", source=archives.write(tmp_path / "a", files), any_hash=True)
    features = extract(tiny_model, "stanford-dogs", crop="box")
    assert [q.reason for q in features.quarantined] == [
        "its box (70, 0, 90, 20) lies outside the image of 60 x 44 pixels"
    ]
    assert len(features) == 20
    assert all(
        Path(path).parent.name.partition("-")[2].replace("_", " ").lower() == label.lower()
        for path, label in zip(features.paths, features.labels or [], strict=True)
    )


def test_pets_have_boxes_from_their_trimaps(tmp_path: Path) -> None:
    source = archives.write(tmp_path / "pets", archives.pets_files())
    folder = fetch("oxford-pets", source=source, any_hash=True)
    dataset = load_dataset("oxford-pets", crop="box")
    assert dataset.classes == ["Abyssinian", "American bulldog"]
    assert set(dataset.boxes or []) == {(20, 9, 50, 30)}
    assert list(dataset.attributes["species"]) == ["cat", "cat", "dog", "dog"] * 2
    assert [list(dataset.split or []).count(part) for part in ("train", "test")] == [4, 4]
    assert sorted(p.name for p in folder.iterdir()) == ["examples.csv", "images"]


def test_archives_that_are_not_the_published_ones_are_refused(dogs: Path) -> None:
    with pytest.raises(DatasetError, match=r"images.tar is not the published .*--any-hash"):
        fetch("stanford-dogs", source=dogs)
    assert nothing_was_kept()


@pytest.mark.parametrize("archive", ["images.tar", "annotation.tar", "lists.tar"])
@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_archive_is_refused_and_leaves_nothing(
    dogs: Path, archive: str, tenth: int
) -> None:
    path = dogs / archive
    data = path.read_bytes()
    # What follows the last file is padding, which is no loss.
    end = data.rstrip(b"\0").__len__()
    path.write_bytes(data[: end * tenth // 10])
    with pytest.raises(DatasetError):
        fetch("stanford-dogs", source=dogs, any_hash=True)
    assert nothing_was_kept()


@pytest.mark.parametrize("kind", ["w", "w:gz", "w:xz"])
def test_a_damaged_archive_never_gives_another_error(tmp_path: Path, kind: str) -> None:
    files = {f"{i}.bin": bytes(np.random.default_rng(i).bytes(3000)) for i in range(4)}
    whole = archives.tar(tmp_path / "whole", files, kind).read_bytes()
    generator = np.random.default_rng(7)
    for trial in range(60):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), 8):
            data[place] ^= 1 << int(generator.integers(8))
        (tmp_path / "damaged").write_bytes(bytes(data))
        target = tmp_path / f"out{trial}"
        target.mkdir()
        with contextlib.suppress(DatasetError):  # which UnsafeArchive is as well
            unpack(tmp_path / "damaged", target)


def _member(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


HOSTILE = {
    "absolute name": _member("/tmp/evil", tarfile.REGTYPE),
    "way up": _member("Images/../../evil", tarfile.REGTYPE),
    "backslash": _member("Images\\..\\evil", tarfile.REGTYPE),
    "drive": _member("C:evil", tarfile.REGTYPE),
    "control character": _member("Images/a\nb", tarfile.REGTYPE),
    "symbolic link": _member("Images/link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": _member("Images/link", tarfile.LNKTYPE, "Images/a.jpg"),
    "pipe": _member("Images/pipe", tarfile.FIFOTYPE),
    "device": _member("Images/device", tarfile.CHRTYPE),
}


@pytest.mark.parametrize("member", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_member_is_refused_and_nothing_is_written_elsewhere(
    tmp_path: Path, member: tarfile.TarInfo
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        good = tarfile.TarInfo("Images/a.jpg")
        good.size = 3
        archive.addfile(good, io.BytesIO(b"abc"))
        archive.addfile(member)
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive) as raised:
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert raised.value.member == member.name
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir()}
    assert written == {"a.tar", "out/Images/a.jpg"}


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b"abc", b"xyz"):
            member = tarfile.TarInfo("Images/a.jpg")
            member.size = 3
            archive.addfile(member, io.BytesIO(data))
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive, match="occurs twice"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


@pytest.mark.parametrize("limit", [{"max_files": 3}, {"max_bytes": 2500}])
def test_an_archive_beyond_its_limits_is_refused(tmp_path: Path, limit: dict[str, int]) -> None:
    files = {f"{i}": bytes(1000) for i in range(5)}
    archives.tar(tmp_path / "bomb.tar.gz", files, "w:gz")
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive, match="not the archive that was expected"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out", **limit)


BAD_ANNOTATIONS = {
    "entities": b'<!DOCTYPE a [<!ENTITY b "b">]><annotation>&b;</annotation>',
    "no box": b"<annotation><size><width>9</width><height>9</height></size></annotation>",
    "no size": b"<annotation></annotation>",
    "no XML": b"xmin=3",
    "empty": b"",
    "endless": b"<annotation>" + b" " * 70_000,
}


@pytest.mark.parametrize("data", BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS.keys())
def test_an_annotation_that_makes_no_sense_is_named(tmp_path: Path, data: bytes) -> None:
    files = archives.stanford_files(1)
    files["annotation.tar"][f"Annotation/{archives.BREEDS[1]}/{archives.BREEDS[1][:9]}_0"] = data
    files["lists.tar"]["test_list.mat"] = files["lists.tar"]["train_list.mat"]
    with pytest.raises(DatasetError, match="n02088094_0 cannot be used"):
        fetch("stanford-dogs", source=archives.write(tmp_path / "a", files), any_hash=True)
    assert nothing_was_kept()


@pytest.mark.parametrize("names", [["../../etc/passwd"], ["a/b/c.jpg"], ["a-b\\c.jpg"], []])
def test_a_list_cannot_name_what_is_elsewhere(tmp_path: Path, names: list[str]) -> None:
    files = archives.stanford_files(1)
    files["lists.tar"] = {f"{part}_list.mat": archives.mat(names) for part in ("train", "test")}
    with pytest.raises(DatasetError):
        fetch("stanford-dogs", source=archives.write(tmp_path / "a", files), any_hash=True)
    assert nothing_was_kept()


def test_what_was_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"featcache fetch stanford-dogs.*816 MB.*--from"):
        load_dataset("stanford-dogs")
    with pytest.raises(InvalidRequest, match="oxford-pets"):
        fetch("stanford-cats")
    with pytest.raises(DatasetNotFound, match=r"no images.tar in"):
        fetch("stanford-dogs", source=tmp_path)


def test_too_little_room_is_told_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Usage:
        free = 10**9

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(StoreWriteError, match=r"needs 1.6 GB .* has 1.0 GB free"):
        fetch("stanford-dogs")


def test_what_a_killed_process_had_unpacked_goes_after_an_hour(dogs: Path) -> None:
    folder = cache_folder() / "datasets"
    old, new = (f".tmp-{digit * 32}" for digit in "01")
    for name in (old, new):
        (folder / name).mkdir(parents=True)
    os.utime(folder / old, (1, 1))
    fetch("stanford-dogs", source=dogs, any_hash=True)
    assert sorted(path.name for path in folder.iterdir()) == [new, "stanford-dogs"]


def test_the_command_fetches_once(dogs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["fetch", "stanford-dogs", "--from", str(dogs), "--any-hash"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [record[k] for k in ("photos", "boxes", "classes", "train", "test")] == [
        18,
        21,
        3,
        12,
        6,
    ]
    (dogs / "images.tar").unlink()
    assert main(arguments) == 0  # it is here already: the archives are not asked for
    assert "18 photos of 3 classes (12 train, 6 test), 21 boxes" in capsys.readouterr().out
    assert main(["fetch", "stanford-cats"]) == 2


def test_boxes_can_come_from_a_table_of_ones_own(photos: Path, tiny_model: Any) -> None:
    table = photos / "boxes.csv"
    table.write_text(
        "path,label,left,top,right,bottom\ncat/00.png,cat,0,0,8,8\ncat/00.png,cat,4,4,20,20\n"
    )
    features = extract(tiny_model, table, crop="box")
    assert features.boxes == [(0, 0, 8, 8), (4, 4, 20, 20)]
    assert not np.allclose(features.X[0], features.X[1])
    with pytest.raises(DatasetError, match=r"has no left, top, right, bottom"):
        extract(tiny_model, photos, crop="box")
    for bad in ("8,0,0,8", "a,0,8,8"):
        table.write_text(f"path,left,top,right,bottom\ncat/00.png,{bad}\n")
        with pytest.raises(DatasetError, match=r"Row 1 .* is not a box"):
            extract(tiny_model, table, crop="box")
    with pytest.raises(InvalidRequest, match="margin"):
        extract(tiny_model, table, crop="box", margin=2)
    with pytest.raises(InvalidRequest, match="crop"):
        extract(tiny_model, table, crop="circle")


@pytest.mark.parametrize("options", [{}, {"crop": "whole"}])
def test_a_margin_without_boxes_is_refused(photos: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"margin=0.2 widens boxes, .* Pass crop='box'"):
        load_dataset(photos, margin=0.2, **options)
    assert main(["extract", "pocket", str(photos), "--margin", "0.2"]) == 2
