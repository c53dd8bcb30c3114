"""What JPEG 2000 files may cost: precincts, layers, and sizes that their boxes do not declare."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from made_jpeg_2000 import jpeg_2000
from peak_memory import peak_of
from PIL import Image

from featcache.images.decode import decode
from featcache.images.image_file import BadImage


@pytest.mark.parametrize("options", [{}, {"own_tile": True}, {"boxes": True}])
def test_a_jpeg_2000_of_too_many_precincts_is_refused_before_it_is_decoded(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    file = tmp_path / "a.jp2"
    file.write_bytes(jpeg_2000(500, precinct=1, **options))
    taken, reasons = peak_of([file])
    assert "500 x 500 pixels into 750,000 JPEG 2000 precincts and 750,000 code blocks" in reasons
    assert taken < 50


def test_the_precincts_of_a_jpeg_2000_count_in_the_memory_that_threads_share(
    tmp_path: Path,
) -> None:
    files = []
    for i in range(4):
        files.append(tmp_path / f"{i}.j2k")
        files[-1].write_bytes(jpeg_2000(350, precinct=1) + bytes([i]))
    alone, reasons = peak_of(files[:1])
    assert 150 < alone < 350
    taken, reasons = peak_of(files, 600_000_000)
    assert "into" not in reasons
    assert taken < alone + 100


def test_a_jpeg_2000_of_too_many_layers_is_refused() -> None:
    with pytest.raises(BadImage, match=r"3,072,000 JPEG 2000 packets in 1,000 layers"):
        decode(jpeg_2000(64, precinct=2, layers=1000))


def test_a_jpeg_2000_larger_than_its_boxes_declare_is_refused() -> None:
    with pytest.raises(BadImage, match=r"declares 64 x 64 .* codestream has 3,000 x 3,000"):
        decode(jpeg_2000(3000, boxes=True, declared=64))


@pytest.mark.parametrize(
    "options",
    [
        {"tile_size": (32, 48), "tile_offset": (3, 5), "offset": (7, 9)},
        {"quality_layers": [40, 20, 1], "quality_mode": "rates", "progression": "RPCL"},
        {"precinct_size": (64, 64), "codeblock_size": (16, 16), "num_resolutions": 3},
        {"plt": True, "irreversible": True, "no_jp2": True, "comment": "a"},
    ],
)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_jpeg_2000_files_of_all_layouts_are_decoded(mode: str, options: dict[str, Any]) -> None:
    image = Image.effect_noise((200, 120), 60).convert(mode)
    image.save(out := io.BytesIO(), "JPEG2000", **options)
    assert decode(out.getvalue()).size == Image.open(out).size
