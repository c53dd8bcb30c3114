"""The text of the cache key for crop and resize, and the values that it stands for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.images.decode import RESIZES
from featcache.images.resize_rule import (
    ResizeRule,
    format_box,
    format_resize,
    parse_box,
    parse_resize,
)

MARGINS = st.one_of(
    st.floats(0, 1, allow_subnormal=False).map(lambda margin: float(f"{margin:.6g}")),
    st.sampled_from([0.0, 1.0, 1e-5, 0.1, 1 / 4]),
)
CROPS = st.one_of(st.just("whole"), MARGINS.map(format_box), st.text(min_size=1))


@given(MARGINS)
def test_a_margin_is_read_as_it_was_written(margin: float) -> None:
    assert parse_box(format_box(margin)) == margin


@given(st.floats(0, 1, allow_subnormal=False))
def test_a_margin_that_is_read_has_the_same_text_as_the_one_written(margin: float) -> None:
    found = parse_box(format_box(margin))
    assert found is not None
    assert math.isclose(found, margin, rel_tol=1e-5)
    assert format_box(found) == format_box(margin)


@given(CROPS, st.sampled_from(RESIZES))
def test_a_rule_is_read_as_it_was_written(crop: str, resize: str) -> None:
    rule = ResizeRule(resize, crop)
    assert parse_resize(format_resize(rule)) == rule


@given(st.one_of(st.text(), st.from_regex(r"[a-z+.0-9-]{0,20}", fullmatch=True)))
def test_any_text_is_that_of_one_value_or_of_none(text: str) -> None:
    rule, margin = parse_resize(text), parse_box(text)
    assert rule is None or format_resize(rule) == text
    assert margin is None or format_box(margin) == text


@pytest.mark.parametrize("text", ["", "stretch", "-bilinear", "whole-pad-bilinear", "a-B-c"])
def test_other_texts_are_no_rules(text: str) -> None:
    assert parse_resize(text) is None


@pytest.mark.parametrize("crop", ["whole", "box+", "box+0", "box+1.1.1", "box+0.10", "box+-", "x"])
def test_other_crops_have_no_margin(crop: str) -> None:
    assert parse_box(crop) is None
