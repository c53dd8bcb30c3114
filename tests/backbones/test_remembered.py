"""What the cache remembers in small files: any changed bit makes it forgotten, never wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench.finetune.pixels import decoded
from bench.splits import Images
from featcache import Store, extract
from featcache._io.atomic import read_memo, write_memo
from featcache._io.cache_dirs import engines_folder, pixels_folder, weights_folder
from featcache.engines.micro_batch import read_size, write_size
from featcache.images.image_file import content_id
from featcache.store.maintenance import verify


def flips(data: bytes) -> list[bytes]:
    """The data with each single bit changed."""
    found = []
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        found.append(bytes(changed))
    return found


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    file, value = tmp_path / "memo.json", {"width": 256, "spec": {"layer": "pool"}}
    write_memo(file, value, "a memo")
    assert read_memo(file) == value
    for changed in flips(file.read_bytes()):
        file.write_bytes(changed)
        assert read_memo(file) in (None, value)  # the value: a space or a digit's case, say


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"value": 1}', b'{"checksum": "", "value": 1}', b"[" * 100_000]
)
def test_what_remember_did_not_write_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert read_memo(tmp_path / "a.json") is None
    assert read_memo(tmp_path / "missing.json") is None


def test_a_batch_size_with_a_flipped_bit_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "pass.json"
    write_size(file, 8)
    assert read_size(file) == 8
    for changed in flips(file.read_bytes()):
        file.write_bytes(changed)
        assert read_size(file) in (None, 8)


@pytest.mark.parametrize("engine", ["keras", "openvino"])
@pytest.mark.parametrize("sealed", [False, True], ids=["flipped", "lying"])
def test_a_wrong_width_in_the_weights_memory_does_not_reach_the_store(
    tmp_path: Path, photos: Path, engine: str, *, sealed: bool
) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")
    options = {"weights": "random", "image_size": 32, "cache_dir": tmp_path / "c"}
    first = extract("mobilenet", photos, engine=engine, **options)
    (memo,) = weights_folder(tmp_path / "c").glob("*.json")
    (tmp_path / "c" / "stores").rename(tmp_path / "earlier")
    text = memo.read_text()
    assert '"width": 1024' in text
    memo.write_text(text.replace('"width": 1024', '"width": 1028'))
    if sealed:
        write_memo(memo, json.loads(memo.read_text())["value"], "a memo")
    second = extract("mobilenet", photos, engine=engine, **options)
    assert Store(second.summary.folder).width == 1024
    assert verify(second.summary.folder) == []
    assert np.allclose(np.asarray(second.X), np.asarray(first.X), atol=1e-5)
    assert bool(list(engines_folder(tmp_path / "c").glob("mobilenet*"))) == (engine == "openvino")


def test_an_unusable_image_stays_unusable_when_the_record_of_pixels_is_damaged(
    tmp_path: Path, photos: Path
) -> None:
    bad = photos / "cat" / "00.png"
    bad.write_bytes(b"no photo")
    paths = tuple(str(path) for path in sorted(photos.rglob("*.png")))
    images = Images(paths, tuple(content_id(Path(path).read_bytes()) for path in paths))
    first = decoded(images, (8, 8), cache_dir=tmp_path)
    assert set(first.unusable) == {content_id(b"no photo")}
    (record,) = pixels_folder(tmp_path).glob("*.json")
    text = record.read_text()
    record.write_text(text.replace(content_id(b"no photo"), "0" * 64))
    again = decoded(images, (8, 8), cache_dir=tmp_path)
    assert again.unusable == first.unusable
    assert again.rows == first.rows
