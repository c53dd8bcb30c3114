"""Drawn dogs: the same for the same seed, with their factors on record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featcache.datasets import drawn_dogs
from featcache.datasets.drawn.breeds import make_breeds
from featcache.errors import InvalidRequest


def test_files_labels_and_factors_belong_together(tmp_path: Path) -> None:
    dataset = drawn_dogs(3, 4, random_state=1, image_size=(48, 64), folder=tmp_path / "d")
    assert (len(dataset), len(dataset.classes or [])) == (12, 3)
    for path, label in zip(dataset.paths, dataset.labels or [], strict=True):
        assert Path(path).parent.name == label
        with Image.open(path) as image:
            assert image.size == (64, 48)
    assert set(dataset.attributes) >= {"size", "light", "fur_length", "coat", "pattern"}
    assert len(set(dataset.attributes["light"])) == 12


def test_the_same_seed_draws_the_same_dogs_and_more_leave_the_first_unchanged(
    tmp_path: Path,
) -> None:
    few = drawn_dogs(2, 2, image_size=64, folder=tmp_path / "few")
    many = drawn_dogs(4, 3, image_size=64, folder=tmp_path / "many")
    for path in few.paths:
        twin = tmp_path / "many" / Path(path).relative_to(tmp_path / "few")
        assert Path(path).read_bytes() == twin.read_bytes()
    assert len(many) == 12
    other = drawn_dogs(2, 2, random_state=9, image_size=64, folder=tmp_path / "other")
    assert {Path(p).read_bytes() for p in other.paths}.isdisjoint(
        Path(p).read_bytes() for p in few.paths
    )


def test_every_dog_is_in_the_picture(tmp_path: Path) -> None:
    dataset = drawn_dogs(10, 2, image_size=64, folder=tmp_path / "d")
    for path in dataset.paths:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 3


def test_drawing_again_finds_what_is_there(tmp_path: Path) -> None:
    first = drawn_dogs(1, 2, image_size=32, folder=tmp_path / "d")
    before = Path(first.paths[0]).stat().st_mtime_ns
    drawn_dogs(1, 2, image_size=32, folder=tmp_path / "d")
    assert Path(first.paths[0]).stat().st_mtime_ns == before


def test_several_processes_draw_what_one_does(tmp_path: Path) -> None:
    one = drawn_dogs(2, 3, image_size=32, folder=tmp_path / "one", workers=1)
    two = drawn_dogs(2, 3, image_size=32, folder=tmp_path / "two", workers=2)
    for a, b in zip(one.paths, two.paths, strict=True):
        assert Path(a).read_bytes() == Path(b).read_bytes()


def test_an_interrupted_drawing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featcache.datasets.drawn.dogs._draw_one", interrupt)
    with pytest.raises(KeyboardInterrupt):
        drawn_dogs(1, 2, image_size=32, folder=tmp_path / "d")
    assert not (tmp_path / "d").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_breeds_have_names_of_their_own() -> None:
    names = [breed.name for breed in make_breeds(400, 0)]
    assert len(set(names)) == 400


@pytest.mark.parametrize(
    "arguments", [{"n_breeds": 0}, {"per_breed": 0}, {"random_state": -1}, {"image_size": 8}]
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest):
        drawn_dogs(**{"n_breeds": 1, "per_breed": 1, **arguments})  # type: ignore[arg-type]
