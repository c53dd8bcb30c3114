"""Fine-tuning on stored outputs of the frozen part: the same result, computed once."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from block_model import SETTINGS, blocks

import featcache
from bench import NO_AUGMENTATION, Augmentation, FineTuned, Images
from bench.contenders.base import Training
from bench.finetune.boundary import boundaries, find_boundary
from bench.finetune.inputs import StoredInputs
from bench.finetune.optimizer import layer_factors
from bench.finetune.parts import training_parts
from featcache.errors import InvalidRequest
from heads import LogisticHead
from heads.schedule import Schedule


def run(images: Images, codes: Any, model: Any = None, **options: Any) -> FineTuned:
    contender = FineTuned(model or blocks(), **{"unfreeze": "b2_conv", **SETTINGS, **options})
    contender.prepare(images, progress=False)
    contender.fit(images, codes, 2, random_state=1, progress=False)
    return contender


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"initial_head": None, "units": (6,), "dropout": 0.3}, marks=pytest.mark.slow),
        {"augmentation": "flip", "views": 2},
    ],
)
def test_training_on_stored_outputs_is_training_on_pixels(
    easy_images: Any, options: dict[str, Any]
) -> None:
    images, codes = easy_images
    stored = run(images, codes, **options)
    pixels = run(images, codes, max_cache=0, cache_dir=images.paths[0] + "-pixels", **options)
    assert stored.facts().notes["stored outputs of"] == "b1_add"
    assert pixels.facts().notes["stored outputs of"] == "none"
    for name in ("loss", "val_loss"):
        expected = pixels.facts().history[name]
        assert stored.facts().history[name] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert np.allclose(stored.predict_proba(images), pixels.predict_proba(images), atol=1e-4)


def test_epochs_train_on_the_views_in_turn(
    easy_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, codes = easy_images
    seen: list[tuple[int, int]] = []
    read = StoredInputs.read

    def noted(self: Any, ids: Any, view: int) -> Any:
        seen.append((len(ids), view))
        return read(self, ids, view)

    monkeypatch.setattr(StoredInputs, "read", noted)
    run(images, codes, epochs=4, validation_fraction=0.25)
    trained = [view for _, view in seen if view]
    assert set(trained) == {1, 2}  # and 0 in the epochs 0 and 3, and for validation


def test_the_outputs_are_stored_once(easy_images: Any) -> None:
    images, codes = easy_images
    first = run(images, codes)
    # The boundary's outputs for all views, and the features that the initial head is trained on.
    head = first._head
    assert head is not None
    n_head = len(head.frozen.features)
    assert 0 < n_head < len(images)
    assert first.facts().computed_now == 3 * len(set(images.ids)) + n_head
    again = run(images, codes, learning_rate=0.01)
    assert again.facts().computed_now == 0
    assert again.facts().extract_seconds > 0
    more = run(images, codes, views=5)
    assert more.facts().computed_now == 2 * len(set(images.ids))


def test_an_image_without_augmented_rows_is_read_as_it_is(easy_images: Any) -> None:
    images, codes = easy_images
    contender = run(images, codes, epochs=1)
    inputs = contender._inputs
    assert isinstance(inputs, StoredInputs)
    lost = images.ids[3]
    assert inputs._augmented is not None
    del inputs._augmented.rows[lost]
    plain, mixed = inputs.read(images.ids[:6], 0), inputs.read(images.ids[:6], 2)
    same = [np.array_equal(a, b) for a, b in zip(plain, mixed, strict=True)]
    assert same == [image_id == lost for image_id in images.ids[:6]]


def test_what_is_larger_than_max_cache_is_not_stored(
    easy_images: Any, caplog: pytest.LogCaptureFixture
) -> None:
    images, codes = easy_images
    caplog.set_level(logging.INFO)
    contender = run(images, codes, epochs=1, max_cache=10_000)
    assert contender.facts().notes["stored outputs of"] == "none"
    assert "take at most" in caplog.text
    assert "more than max_cache" in caplog.text


def test_boundaries_are_where_nothing_else_passes() -> None:
    model = blocks()
    found = {one.layer: one for one in boundaries(model)}
    assert list(found) == ["scale", "stem", "b1_add", "b2_add", "pool"]
    assert found["b1_add"].shape == (7, 7, 8)
    assert found["b1_add"].width == 392
    assert [one.layer for one in found.values() if one.is_output] == ["pool"]


def test_the_smallest_output_of_the_last_block_is_chosen() -> None:
    import keras

    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 1, name="narrow")(inputs)
    x = keras.layers.Conv2D(64, 1, name="wide")(x)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 1, name="last")(x))
    boundary = find_boundary(model, 3)
    assert boundary is not None
    assert boundary.layer == "narrow"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("b1_conv", r"inside a block.*nearest.*'stem', 'b1_add'"),
        ("b2_add", r"is trained, as are all layers from 'b2_conv' on.*'b1_add'"),
        ("nowhere", r"is not a layer.*'b1_add'"),
    ],
)
def test_a_boundary_that_cannot_be_one_is_refused_with_the_nearest(
    layer: str, message: str
) -> None:
    model = blocks()
    names = [one.name for one in model.layers]
    with pytest.raises(InvalidRequest, match=message):
        find_boundary(model, names.index("b2_conv"), layer)


def test_a_model_that_calls_a_layer_twice_trains_on_pixels(easy_images: Any) -> None:
    import keras

    images, codes = easy_images
    inputs = keras.Input((16, 16, 3))
    shared = keras.layers.Dense(3, name="shared")
    x = shared(shared(keras.layers.Rescaling(1 / 255)(inputs)))
    x = keras.layers.Conv2D(4, 3, name="b2_conv")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    assert run(images, codes, model, epochs=1).facts().notes["stored outputs of"] == "none"


def test_a_head_is_where_training_starts(easy_images: Any) -> None:
    images, codes = easy_images
    contender = FineTuned(blocks(), "b2_conv", **SETTINGS)
    contender.prepare(images, progress=False)
    training = Training(images, codes, 2, 0, False)
    network, _, _ = contender._build(training)
    features = featcache.extract(blocks(), images.dataset(), progress=False)
    trained, _ = training_parts(Training(images, codes, 2), 0.1)
    head = LogisticHead().fit(features.X[trained], codes[trained])
    pixels = np.stack([images.pixels(i, (16, 16), "stretch") for i in range(len(images))])
    proba = np.asarray(network.full.predict(pixels.astype("float32"), verbose=0))
    assert np.allclose(proba, head.predict_proba(features.X), atol=1e-4)


def test_the_cost_includes_that_of_the_head(easy_images: Any) -> None:
    images, codes = easy_images
    with_head = run(images, codes, epochs=1)
    inputs, facts = with_head._prepared(), with_head.facts()
    assert with_head._head is not None
    assert facts.extract_seconds > inputs.seconds
    epochs = facts.history["seconds"][-1] + with_head._fold_seconds
    assert facts.fit_seconds == pytest.approx(epochs + with_head._head.fit_seconds)
    assert with_head._head.fit_seconds > 0
    without = run(images, codes, epochs=1, initial_head=None)
    assert without.facts().extract_seconds == without._prepared().seconds


def test_features_that_are_the_outputs_of_the_boundary_are_counted_once(easy_images: Any) -> None:
    images, codes = easy_images
    contender = run(images, codes, unfreeze=0.0, epochs=1)
    assert contender._head is not None
    assert contender._head.frozen.features.spec.key == contender._prepared().key
    assert contender.facts().computed_now == contender._prepared().computed_now
    assert contender.facts().extract_seconds == contender._prepared().seconds


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_images_and_a_tiny_validation_part_train(easy_images: Any, count: int) -> None:
    images, codes = easy_images
    rows = np.concatenate([np.flatnonzero(codes == code)[:count] for code in (0, 1)])
    few = images.take(rows)
    contender = run(few, codes[rows], epochs=2, validation_fraction=0.01)
    proba = contender.predict_proba(few)
    assert np.isfinite(proba).all()
    assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)


def test_a_head_says_least_of_a_class_without_images(easy_images: Any) -> None:
    images, codes = easy_images
    contender = FineTuned(blocks(), "b2_conv", **SETTINGS)
    contender.prepare(images, progress=False)
    network, _, _ = contender._build(Training(images, codes * 2, 3, 0, False))
    pixels = np.stack([images.pixels(i, (16, 16), "stretch") for i in range(len(images))])
    proba = np.asarray(network.full.predict(pixels.astype("float32"), verbose=0))
    assert (proba[:, 1] < proba[:, [0, 2]].max(axis=1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_head": "logistic", "units": (4,)}, "does not fit behind the dense layers"),
        ({"initial_head": "svm"}, "initial_head='svm'"),
        ({"views": 0}, "views=0"),
        ({"views": 3, "augmentation": "flip"}, "two views"),
        ({"lr_schedule": "step"}, "lr_schedule='step'"),
        ({"layer_decay": 1.5}, "layer_decay=1.5"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        FineTuned(blocks(), 0.4, **options)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 4),
        ({"augmentation": "flip"}, 2),
        ({"augmentation": NO_AUGMENTATION}, 1),
        ({"augmentation": Augmentation(zoom=0.3)}, 4),
        ({"views": 3}, 3),
    ],
)
def test_the_default_number_of_views_fits_the_augmentation(
    options: dict[str, Any], count: int
) -> None:
    assert FineTuned(blocks(), 0.4, **options).views.count == count


def test_an_augmentation_that_is_not_used_is_not_in_the_notes(easy_images: Any) -> None:
    images, codes = easy_images
    contender = run(images, codes, views=1, epochs=1, initial_head=None)
    assert contender.facts().notes["augmentation"] == "none"


def test_the_rate_falls_from_layer_to_layer() -> None:
    model = blocks()
    for layer in model.layers:
        layer.trainable = layer.name in ("b1_conv", "b2_conv")
    factors = layer_factors(model, 0.5)
    at = {v.path.split("/")[0]: factors[id(v)] for v in model.trainable_variables}
    assert at == {"b1_conv": 0.25, "b2_conv": 0.5}


@pytest.mark.slow
def test_a_decay_of_zero_trains_the_top_alone_and_smoothing_changes_the_loss(
    easy_images: Any,
) -> None:
    images, codes = easy_images
    contender = run(images, codes, layer_decay=0.0, epochs=2)
    body = next(layer for layer in contender.model.layers if hasattr(layer, "layers"))
    kernel = body.get_layer("b2_conv").get_weights()[0]
    assert np.array_equal(kernel, blocks().get_layer("b2_conv").get_weights()[0])
    smoothed = run(images, codes, label_smoothing=0.3, epochs=2)
    plain = run(images, codes, epochs=2)
    assert smoothed.facts().history["loss"][0] > plain.facts().history["loss"][0] + 0.05


def test_batches_are_read_ahead_in_order_and_an_error_is_raised() -> None:
    from bench.finetune.training import read_ahead

    def read(rows: Any) -> Any:
        if rows[0] == 5:
            raise OSError("gone")
        return rows * 2

    batches = [np.array([i]) for i in range(5)]
    assert [int(b[0]) for b in read_ahead(read, batches)] == [0, 2, 4, 6, 8]
    assert list(read_ahead(read, [])) == []
    with pytest.raises(OSError, match="gone"):
        list(read_ahead(read, [*batches, np.array([5])]))


def test_a_cosine_with_warm_up_begins_and_ends_at_nothing() -> None:
    schedule = Schedule(4, 8, 1.0, 9, 1, 0.1, "cosine", 1.0)
    rates = [schedule.rate_at(1.0, epoch, part) for epoch in range(4) for part in (0.0, 0.5)]
    assert rates[0] == 0.0
    assert rates[1] == 0.5
    assert rates[2] == 1.0
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert schedule.rate_at(1.0, 3, 1.0) == pytest.approx(0.0)
    assert Schedule(4, 8, 1.0, 9, 1, 0.1).rate_at(0.3, 2, 0.5) == 0.3


def test_an_estimate_counts_the_passes_of_all_views(easy_images: Any) -> None:
    images, codes = easy_images
    contender = FineTuned(blocks(), "b2_conv", **SETTINGS)
    few = contender.estimate(images, 30, 2)
    # All images, and two more views of the 30 training images.
    assert (40 + 2 * 30) * 4 * 392 <= few.disk_bytes < 3 * 40 * 4 * 392
    run(images, codes)
    assert contender.estimate(images, 30, 2).disk_bytes < few.disk_bytes


def test_dropout_of_the_backbone_does_nothing_in_training(easy_images: Any) -> None:
    import keras

    def make() -> Any:
        body = blocks()
        x = keras.layers.Dropout(0.5, name="early")(body.get_layer("b1_add").output)
        x = keras.layers.Conv2D(8, 3, name="late")(x)
        model = keras.Model(body.input, keras.layers.GlobalAveragePooling2D()(x))
        model.get_layer("late").set_weights(
            [np.random.default_rng(0).normal(0, 0.1, w.shape) for w in model.layers[-2].weights]
        )
        return model

    images, codes = easy_images
    options: dict[str, Any] = {"unfreeze": "late", "epochs": 2, "views": 1}
    stored = run(images, codes, make(), **options)
    pixels = run(images, codes, make(), max_cache=0, cache_dir=images.paths[0] + "-p", **options)
    assert stored.facts().notes["stored outputs of"] == "early"
    for name in ("loss", "val_loss"):
        expected = pixels.facts().history[name]
        assert stored.facts().history[name] == pytest.approx(expected, rel=1e-4, abs=1e-7)
