"""The hash of a model's architecture: what its configuration may hold."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from featcache.backbones.architecture import architecture_hash


@pytest.fixture
def hash_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], str]:
    """Return the hash of a model of Keras whose configuration has one more setting."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    config = model.get_config()

    def hash_with(value: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(keras.Sequential, "get_config", lambda self: {**config, "more": value})
            return architecture_hash(model)

    return hash_with


def test_settings_that_json_does_not_know_count_by_their_text(hash_of: Any) -> None:
    one, same, other = (hash_of(Decimal(text)) for text in ("1.50", "1.50", "1.51"))
    assert one == same
    assert one != other


def test_a_setting_that_is_known_by_its_address_alone_is_refused(hash_of: Any) -> None:
    with pytest.raises(ValueError, match="has no stable description"):
        hash_of(object())


def test_models_of_named_outputs_count_by_their_order_and_not_by_automatic_names() -> None:
    import keras

    def build(swapped: bool = False) -> Any:
        image = keras.Input((4, 4, 3), name="image")
        a, b = keras.layers.Flatten()(image), keras.layers.GlobalAveragePooling2D()(image)
        return keras.Model({"image": image}, {"a": b, "b": a} if swapped else {"a": a, "b": b})

    first, again = architecture_hash(build()), architecture_hash(build())
    assert first == again
    assert first != architecture_hash(build(swapped=True))


def test_a_model_that_cannot_describe_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    def failing(self: Any) -> Any:
        raise NotImplementedError("no config")

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    monkeypatch.setattr(keras.Sequential, "get_config", failing)
    with pytest.raises(ValueError, match=r"get_config\(\) failed: no config"):
        architecture_hash(model)
