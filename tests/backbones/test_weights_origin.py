"""The text by which a store says where its weights come from, and what is read of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.backbones.spec import BackboneSpec, own_model_name
from featcache.backbones.weights import Weights, parse_origin

PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).map(
    lambda text: Path("/", text)
)
WEIGHTS = st.one_of(
    st.sampled_from([Weights("imagenet"), Weights("packaged"), Weights("model")]),
    st.builds(Weights, st.just("random"), seed=st.integers(0, 10**18 - 1)),
    st.builds(Weights, st.sampled_from(["file", "model"]), PATHS),
)


@given(WEIGHTS)
def test_an_origin_is_read_as_it_was_written(weights: Weights) -> None:
    assert parse_origin(weights.origin) == weights


@given(st.text())
def test_any_text_is_the_origin_of_one_value_or_of_none(text: str) -> None:
    found = parse_origin(text)
    assert found is None or found.origin == text


@pytest.mark.parametrize(
    "text", ["", "random", "random (seed ٣)", "random (seed 03)", "photos/a.h5"]
)
def test_other_texts_are_no_origins(text: str) -> None:
    assert parse_origin(text) is None


def test_a_spec_tells_own_models_from_those_of_the_table() -> None:
    rest = ("avg_pool", "0" * 64, "avg", (8, 8), "pad-bilinear", 1, "tf")
    assert BackboneSpec(own_model_name("0123456789abcdef" * 4), *rest).is_own_model
    assert not BackboneSpec("resnet50", *rest).is_own_model
