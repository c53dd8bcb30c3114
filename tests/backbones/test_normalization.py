"""`Normalization`: what it computes, its key, and the text that describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featcache import Normalization, extract
from featcache.backbones.preprocessing import RULES, apply, as_rule, fingerprint, synthetic_images
from featcache.errors import InvalidRequest

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SAME = {
    "none": Normalization(scale=1),
    "unit": Normalization(),
    "tf": Normalization(mean=0.5, std=0.5),
    "torch": IMAGENET,
    "caffe": Normalization((103.939, 116.779, 123.68), scale=1, channels="bgr"),
    "clip": Normalization(
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_normalization_that_does_what_a_named_rule_does_has_its_key(name: Any) -> None:
    images = synthetic_images()
    assert fingerprint(SAME[name]) == fingerprint(name)
    assert as_rule(SAME[name]) == name
    assert np.allclose(apply(SAME[name], images), apply(name, images), atol=1e-4)


def test_others_have_keys_of_their_own() -> None:
    others = [
        Normalization(mean=(0.485, 0.456, 0.407), std=(0.229, 0.224, 0.225)),
        Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), channels="bgr"),
        Normalization(std=1e5),
        Normalization(std=2e5),  # both prepare images of zeros, but for rounding
        *SAME.values(),
    ]
    assert len({fingerprint(rule) for rule in others}) == len(others)
    assert fingerprint(Normalization(mean=0.3)) == "6c9618d36a374081"


def test_the_channels_are_reversed_before_the_mean_is_taken_off() -> None:
    rule = Normalization(mean=(0.1, 0.2, 0.3), std=(1, 2, 4), scale=0.5, channels="bgr")
    found = apply(rule, np.array([[[[10, 20, 40]]]], np.uint8)).ravel()
    assert np.allclose(found, [(20 - 0.1) / 1, (10 - 0.2) / 2, (5 - 0.3) / 4])


def test_its_text_gives_it_again() -> None:
    rule = Normalization(mean=(0.1, 0.2, 0.3), std=1 / 3, scale=1e-6, channels="bgr")
    assert as_rule(str(rule)) == rule
    assert as_rule("mean:0.5:std:0.5") == "tf"


@pytest.mark.parametrize(
    "text",
    ["mean:x", "0.5:mean", "mean:0.5:0.5", "std:0", "scale:1:2", "scale:", "mean:", "channels:",
     "channels:rgb:bgr", "channels:gray", "mean:nan", "std:inf", ":", "std:-1", "mean:1e400",
     "mean:0.5:std:0.5:mean:0.2"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        as_rule(text)


@pytest.mark.parametrize(
    "values",
    [{"mean": (1, 2)}, {"mean": "0.5"}, {"std": 0}, {"std": float("nan")}, {"scale": (1, 2, 3)},
     {"scale": True}, {"mean": None}, {"mean": [[1], [2], [3]]}, {"channels": "RGB"}, {"std": 1e9},
     {"mean": np.zeros((3, 1))}],
)  # fmt: skip
def test_values_that_are_no_normalization_are_refused(values: Any) -> None:
    with pytest.raises(InvalidRequest):
        Normalization(**values)


def test_engines_agree(photos: Path, tmp_path: Path, tiny_model: Any) -> None:
    rule = Normalization(mean=(0.1, 0.2, 0.3), std=(0.5, 0.7, 0.9), channels="bgr")
    one, other = (
        extract(tiny_model, photos, preprocessing=rule, engine=engine, cache_dir=tmp_path / engine)
        for engine in ("keras", "openvino")  # type: ignore[arg-type]
    )
    assert np.abs(np.asarray(one.X) - np.asarray(other.X)).max() < 1e-5
    assert one.spec == other.spec
