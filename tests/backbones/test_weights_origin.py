"""The argument by which a store says how its weights can be chosen again, and own models."""

from __future__ import annotations

from pathlib import Path

import pytest

from featcache.backbones.request import BackboneOptions, make_request
from featcache.backbones.spec import BackboneSpec, own_model_name


@pytest.mark.parametrize("weights", ["auto", "imagenet", "random", "random:7", "FILE"])
def test_the_argument_in_the_metadata_chooses_the_same_weights(
    weights: str, tmp_path: Path
) -> None:
    file = tmp_path / "random (seed 3).weights.h5"
    file.write_bytes(b"")
    chosen = make_request(
        "mobilenet", BackboneOptions(weights=str(file) if weights == "FILE" else weights)
    )
    argument = chosen.metadata()["weights_argument"]
    assert make_request("mobilenet", BackboneOptions(weights=argument)).weights == chosen.weights


def test_a_spec_tells_own_models_from_those_of_the_table() -> None:
    rest = ("avg_pool", "0" * 64, "avg", (8, 8), "pad-bilinear", 1, "tf")
    assert BackboneSpec(own_model_name("0123456789abcdef" * 4), *rest).is_own_model
    assert not BackboneSpec("resnet50", *rest).is_own_model
