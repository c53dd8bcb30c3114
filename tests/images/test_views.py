"""Augmented views: the same everywhere, within the limits of their augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from featcache.errors import InvalidRequest
from featcache.images.views import Augmentation, View, parse_augmentation, views_of

NONE = Augmentation(False, False, 0, 0, 0, 0, 0, 0)


def only(**values: Any) -> Augmentation:
    return Augmentation(**{**{f: getattr(NONE, f) for f in NONE.__dataclass_fields__}, **values})


def pixels(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray[Any, Any]:
    small = np.random.default_rng(seed).integers(40, 215, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


NO_MOVE = Augmentation(rotation=0, shift=0, zoom=0)


def test_view_zero_is_the_image() -> None:
    image = pixels()
    for augmentation in (None, "flip", only(brightness=1.0)):
        assert views_of(2, augmentation)[0].apply(image, "a") is image
        assert views_of(2, augmentation)[0].key == "plain"


def test_flip_mirrors_every_image() -> None:
    view = views_of(2, "flip", 7)[1]
    assert np.array_equal(view.apply(pixels(), "a"), pixels()[:, ::-1])
    assert view.key == views_of(2, "flip", 8)[1].key == "flip"  # a seed changes nothing


def test_a_view_is_the_same_on_every_machine() -> None:
    """These pixels must not change by more than rounding: a key stands for them."""
    view = View(3, Augmentation(), 5).apply(pixels(), "some id").astype(int)
    known = np.array([
        [[108, 100, 125], [170, 172, 185], [185, 107, 198], [83, 153, 100]],
        [[153, 124, 91], [113, 134, 160], [98, 182, 132], [115, 100, 120]],
        [[196, 126, 142], [72, 113, 68], [168, 140, 159], [143, 164, 98]],
        [[198, 123, 155], [77, 152, 48], [155, 159, 76], [165, 197, 52]],
    ])  # fmt: skip
    assert np.abs(view[::13, ::19] - known).max() <= 1


def test_random_numbers_are_uniform() -> None:
    draws = [View(k, only(brightness=0.2), 1).apply(pixels(), "x").mean() for k in range(1, 200)]
    # Uniform from -51 to 51 about the image's own mean.
    assert abs(np.mean(draws) - pixels().mean()) < 6
    assert 45 < max(draws) - pixels().mean() < 51.5


def test_number_seed_and_image_each_change_the_view() -> None:
    base = View(1, Augmentation(), 0).apply(pixels(), "a")
    for view, name in (
        (View(2, Augmentation(), 0), "a"),
        (View(1, Augmentation(), 1), "a"),
        (View(1, Augmentation(), 0), "b"),
    ):
        assert not np.array_equal(view.apply(pixels(), name), base)


def test_keys_differ_where_pixels_can_differ() -> None:
    kinds = (Augmentation(), only(rotation=0.1), only(shift=0.1), "flip")
    views = [View(n, kind, seed) for n in (1, 2) for seed in (0, 1) for kind in kinds]
    augmented = [view for view in views if view.key not in ("plain", "flip")]
    assert len({view.key for view in augmented}) == len(augmented) == 12


def test_equal_augmentations_have_one_key() -> None:
    assert View(1, only(zoom=0.5), 0).key == View(1, only(zoom=np.float64(0.5)), 0).key
    assert View(1, only(shift=1), 0).key == View(1, only(shift=1.0), 0).key


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 50), st.integers(1, 50), st.integers(1, 999), st.integers(0, 2**62),
    st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 0.9),
)  # fmt: skip
def test_a_moved_view_shows_nothing_but_the_image(
    height: int, width: int, number: int, seed: int, rotation: float, shift: float, zoom: float
) -> None:
    image = np.full((height, width, 3), (250, 130, 9), np.uint8)
    moving = Augmentation(True, True, rotation, shift, zoom, 0, 0, 0)
    view = View(number, moving, seed).apply(image, "x")
    assert view.dtype == np.uint8
    assert np.array_equal(view, image)  # of one colour: a black corner would be seen


@pytest.mark.parametrize(
    "augmentation", [Augmentation(zoom=0.9, rotation=0.5), Augmentation(), NO_MOVE]
)
def test_the_memory_of_a_view_is_that_of_its_padded_image(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded, pad = [], np.pad

    def measured(*arguments: Any) -> Any:
        padded.append(pad(*arguments))
        return padded[-1]

    monkeypatch.setattr(np, "pad", measured)
    largest = 0
    for number in range(1, 40):
        view = View(number, augmentation)
        view.apply(np.zeros((20, 30, 3), np.uint8), "image")
        pixels = padded.pop().size // 3 if padded else 0
        assert view.working_bytes(20, 30, "image") == 7 * pixels
        largest = max(largest, pixels)
    assert (largest > 30 * 20 * 30) == (augmentation.zoom == 0.9)
    assert View(1, "flip").working_bytes(20, 30, "image") == 0


def test_a_shift_moves_pixels_and_mirrors_the_edge() -> None:
    image = pixels(40, 60)
    for number in range(1, 20):
        view = View(number, only(shift=0.5), 3).apply(image, "x").astype(int)
        # The image, repeated by mirroring, contains the view at some place in between pixels.
        wide = np.pad(image, ((40, 40), (60, 60), (0, 0)), "symmetric").astype(int)
        errors = [
            np.abs(wide[y : y + 40, x : x + 60] - view).mean()
            for y in range(15, 66) for x in range(25, 96)
        ]  # fmt: skip
        assert min(errors) < 4


def test_a_largest_rotation_is_a_quarter_turn() -> None:
    image = pixels(48, 48)
    turns = [View(k, only(rotation=0.25), 0).apply(image, "x").astype(int) for k in range(1, 400)]
    errors = [np.abs(turn - np.rot90(image, k)).max() for turn in turns for k in (1, 3)]
    assert min(errors) < 60 < np.median(errors)  # some angle is near a quarter turn


def test_colours_change_as_described() -> None:
    image = pixels()
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    for number in range(1, 30):
        bright = View(number, only(brightness=0.1), 0).apply(image, "x").astype(float) - image
        assert np.ptp(bright) <= 1
        assert abs(bright.mean()) <= 26
        contrast = View(number, only(contrast=0.3), 0).apply(image, "x").astype(float)
        assert np.allclose(contrast.mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=0.6)
        assert 0.69 < contrast.std() / image.std() < 1.31
        colours = View(number, only(saturation=1.0), 0).apply(image, "x").astype(float)
        unclipped = (colours > 0).all(axis=2) & (colours < 255).all(axis=2)
        now = (colours @ np.array([0.299, 0.587, 0.114]))[..., None]
        assert np.abs(now - grey)[unclipped].max() <= 1  # the grey of a pixel stays


@pytest.mark.parametrize(
    ("count", "augmentation", "seed", "message"),
    [
        (0, None, 0, "views=0 must be a whole number from 1"),
        (True, None, 0, "views=True"),
        (2.0, None, 0, "views=2.0"),
        (1001, None, 0, "1000"),
        (3, "flip", 0, "two views"),
        (2, "mirror", 0, "'flip' or None"),
        (2, None, -1, "random_state=-1"),
        (2, None, 0.5, "random_state=0.5"),
        (2, None, True, "random_state=True"),
    ],
)
def test_what_makes_no_sense_is_refused(
    count: Any, augmentation: Any, seed: Any, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        views_of(count, augmentation, seed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rotation", 0.6), ("shift", -0.1), ("zoom", 1.0), ("brightness", float("nan")),
     ("contrast", "0.1"), ("saturation", True), ("horizontal_flip", 1), ("vertical_flip", None)],
)  # fmt: skip
def test_an_augmentation_out_of_range_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequest, match=name):
        Augmentation(**{name: value})


def test_numbers_of_numpy_are_numbers() -> None:
    given = only(
        zoom=np.float64(0.5), shift=np.float32(0.25), vertical_flip=np.True_, rotation=-0.0
    )
    plain = only(zoom=0.5, shift=0.25, vertical_flip=True)
    assert repr(given) == repr(plain)
    views = views_of(np.int64(3), given, np.uint8(7))  # type: ignore[arg-type]
    assert [view.key for view in views] == [view.key for view in views_of(3, plain, 7)]


def test_an_augmentation_that_was_changed_or_extended_is_refused() -> None:
    changed = Augmentation()
    object.__setattr__(changed, "zoom", 5.0)

    class Unchecked(Augmentation):
        def __post_init__(self) -> None:
            pass

    for augmentation, message in ((changed, "zoom=5.0"), (Unchecked(zoom=np.nan), "Unchecked")):
        with pytest.raises(InvalidRequest, match=message):
            views_of(2, augmentation)
    with pytest.raises(InvalidRequest, match="must be an Augmentation"):
        views_of(2, np.array(["flip", "flip"]))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"from 0 to 2\*\*63 - 1"):
        views_of(2, None, 2**63)


def test_a_text_gives_a_value_once() -> None:
    with pytest.raises(InvalidRequest, match="zoom twice"):
        parse_augmentation("zoom=0.1,zoom=0.2")
