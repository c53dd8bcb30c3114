"""The key changes with everything that changes a feature, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featcache.backbones import preprocessing
from featcache.backbones.spec import (
    BackboneSpec,
    backbone_entries,
    content_key,
    differing,
    find_backbone,
)
from featcache.errors import InvalidRequest, UnknownBackbone

SPEC = BackboneSpec(
    "resnet50", "avg_pool", "ab" * 32, "none", (224, 224), "stretch-bilinear", 1, "0f" * 8
)
CHANGES: dict[str, Any] = {
    "backbone": "vgg19", "layer": "conv5", "weights": "cd" * 32, "pooling": "max",
    "image_size": (224, 225), "resize": "crop-bilinear", "decode_version": 2,
    "preprocessing": "1f" * 8, "precision": "bfloat16", "views": "flips", "row_dtype": "float16",
}  # fmt: skip


@pytest.mark.parametrize("component", list(SPEC.all_values()))
def test_every_component_is_in_the_key(component: str) -> None:
    other = replace(SPEC, **{component: CHANGES[component]})
    assert other.key != SPEC.key
    assert differing(SPEC, other) == [component]


def test_the_key_of_a_known_spec_is_pinned() -> None:
    # A change here makes every store of every user a miss: raise a version on purpose only.
    # The default row_dtype is no component: stores from before there was a choice keep their key.
    assert SPEC.key == "b4e46c9d8716bca2a64bc639f0365188044b4830aa0bfa0a570ecf01578a673a"


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, row_dtype="float16")])
def test_a_spec_survives_its_file_form(spec: BackboneSpec) -> None:
    assert BackboneSpec.from_components(spec.components()) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"layer": 1.5},
        {"image_size": 3},
        {"weights": b"x"},
        {"row_dtype": "float64"},
        {"row_dtype": "float32"},
        {"row_dtype": 16},
    ],
)
def test_components_of_a_wrong_form_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises((InvalidRequest, TypeError)):
        BackboneSpec.from_components({**SPEC.components(), **change})


@pytest.mark.parametrize("value", [1.0, b"x", {1}, np.int64(3), object()])
def test_a_value_without_one_text_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        content_key({"a": value})


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), plain), st.dictionaries(st.text(), plain))
def test_keys_are_equal_exactly_for_equal_components(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    # repr tells 1 from True, which == does not.
    same = sorted((k, repr(v)) for k, v in one.items()) == sorted(
        (k, repr(v)) for k, v in other.items()
    )
    assert (content_key(one) == content_key(other)) == same


def test_near_names_are_suggested() -> None:
    with pytest.raises(UnknownBackbone, match="Did you mean 'vgg19'") as raised:
        find_backbone("vgg91")
    assert "vgg19" in raised.value.near


@pytest.mark.parametrize("name", ["ResNet50", "resnet-50", "RESNET50"])
def test_names_are_found_however_they_are_spelt(name: str) -> None:
    assert find_backbone(name).name == "resnet50"


def test_the_named_backbones_have_their_layers_and_widths() -> None:
    rows = {n: (r.layer, r.width, r.image_size) for n, r in backbone_entries().items()}
    assert rows["vgg19"] == ("fc2", 4096, 224)
    assert rows["resnet50"] == ("avg_pool", 2048, 224)
    assert rows["inception_resnet_v2"] == ("avg_pool", 1536, 299)


def test_rules_that_do_different_things_have_different_fingerprints() -> None:
    prints = [preprocessing.fingerprint(rule) for rule in preprocessing.RULES]
    assert len(set(prints)) == len(prints)


def test_a_function_that_seems_to_do_what_a_rule_does_has_a_key_of_its_own() -> None:
    assert preprocessing.fingerprint(lambda x: x / 127.5 - 1) != preprocessing.fingerprint("tf")


@pytest.mark.parametrize("rule", ["imagenet", lambda x: x[:, :4], lambda x: x * np.nan])
def test_rules_that_cannot_be_used_are_refused(rule: Any) -> None:
    with pytest.raises(InvalidRequest):
        preprocessing.fingerprint(rule)


@pytest.mark.parametrize("rule", preprocessing.RULES)
def test_a_rule_never_writes_into_the_batch(rule: str) -> None:
    batch = preprocessing.synthetic_images()
    before = batch.copy()
    preprocessing.apply(rule, batch)
    assert np.array_equal(batch, before)
