"""Features of several backbones side by side: each row is of the example that it says."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import featcache
import heads
from featcache import Features, concat, extract
from featcache.errors import InvalidRequest, NoUsableImages
from featcache.extraction.summary import Quarantined
from featcache.store.store import Store
from made_features import IMAGES, VIEWS, Backbones, expected

PLAIN = [(image, 0) for image in range(IMAGES)]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Backbones:
    return Backbones(tmp_path_factory.mktemp("stores"))


@pytest.fixture
def both(backbones: Backbones) -> Features:
    return concat([backbones.features(0, PLAIN), backbones.features(1, PLAIN)])


def refuse_to_read(*_: Any) -> Any:
    raise AssertionError("rows were read")


selections = st.lists(
    st.tuples(st.integers(0, IMAGES - 1), st.integers(0, VIEWS - 1)), min_size=1, max_size=14
)


@settings(max_examples=150, deadline=None)
@given(st.lists(selections, min_size=2, max_size=3), st.data())
def test_every_row_is_of_its_example_and_view(
    backbones: Backbones, selected: list[list[tuple[int, int]]], data: st.DataObject
) -> None:
    parts = [backbones.features(b, rows) for b, rows in enumerate(selected)]
    first, *others = selected
    kept = [row for row in first if all(row in rows for rows in others)]
    if not kept:
        with pytest.raises(NoUsableImages, match="No example is in all of"):
            concat(parts)
        return
    joined = concat(parts)
    whole = expected(range(len(parts)), kept)
    assert list(zip(joined.positions.tolist(), joined.views.tolist(), strict=True)) == kept
    assert np.array_equal(np.asarray(joined.X), whole)
    assert joined.labels == [("cat", "dog")[image % 2] for image, _ in kept]
    lacking = {r for rows in selected for r in rows if not all(r in other for other in selected)}
    assert {bad.position for bad in joined.quarantined} == {image for image, _ in lacking}
    chosen = data.draw(st.lists(st.integers(0, len(kept) - 1), max_size=5))
    assert np.array_equal(np.asarray(joined[chosen].X), whole[chosen])
    assert np.array_equal(joined.X[chosen], whole[chosen])


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(IMAGES)), st.permutations(range(IMAGES)))
def test_the_means_of_views_are_those_of_each_part(
    backbones: Backbones, order: list[int], other: list[int]
) -> None:
    orders = [[(i, v) for v in range(VIEWS) for i in one] for one in (order, other)]
    joined = concat([backbones.features(b, rows) for b, rows in enumerate(orders)])
    mean = np.mean([expected((0, 1), [(i, v) for i in order]) for v in range(VIEWS)], axis=0)
    assert np.allclose(np.asarray(joined.mean_views().X), mean, atol=1e-6)
    assert np.allclose(joined.mean_views()[::-1].X[0], mean[-1], atol=1e-6)


def test_nothing_is_read_until_it_is_used(
    backbones: Backbones, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "read", refuse_to_read)
    joined = concat([backbones.features(0, PLAIN), backbones.features(1, PLAIN)])
    assert joined.X.shape == (IMAGES, 7)
    assert repr(joined.X) == f"<JoinedRows {IMAGES} x 7 float32>"
    assert repr(joined[:5]) == "<Features 5 x 7 of b0/pool + b1/pool, 2 classes>"
    assert joined.stored_bytes == joined.X.nbytes
    assert "b0/pool + b1/pool" in joined._repr_html_()
    assert joined.summary.computed == 4
    assert [part.backbone for part in joined.summary.parts] == ["b0", "b1"]


def test_many_rows_are_read_in_blocks(both: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("featcache.extraction.derived.rows._BLOCK_BYTES", 3 * 4 * 7)
    sizes, read = list[int](), Store.read

    def counted(store: Store, ids: Any) -> Any:
        sizes.append(len(ids))
        return read(store, ids)

    monkeypatch.setattr(Store, "read", counted)
    assert np.array_equal(np.asarray(both.X), expected((0, 1), PLAIN))
    assert sizes == [3, 3, 3, 3, 2, 2]


def test_joined_rows_are_arrays_as_stored_ones_are(both: Features) -> None:
    whole = expected((0, 1), PLAIN)
    assert np.array_equal(both.X[2:5, 3:], whole[2:5, 3:])
    assert np.allclose(both.X.mean(axis=0), whole.mean(axis=0))
    assert np.allclose(both.X - 1, whole - 1)
    assert np.array_equal(np.array(list(both.X)), whole)
    assert np.array_equal(np.asarray(pickle.loads(pickle.dumps(both)).X), whole)
    assert both.to_frame(embeddings=True).shape == (IMAGES, 3 + 7)


def test_a_photo_that_occurs_twice_stays_two_rows_with_their_labels(backbones: Backbones) -> None:
    rows = [(0, 0), (1, 0), (0, 0)]
    first = backbones.features(0, rows, [0, 1, 1])
    other = backbones.features(1, [(0, 0), (0, 0), (1, 0)], [1, 0, 1])
    joined = concat([first, other])
    assert joined.labels == ["cat", "dog", "dog"]
    assert np.array_equal(np.asarray(joined.X), expected((0, 1), rows))
    once = concat([first, backbones.features(1, [(0, 0), (1, 0)], y=None, classes=None)])
    assert len(once) == 3
    assert once.labels == joined.labels


def test_an_example_that_one_part_lacks_is_dropped_with_a_warning(
    backbones: Backbones, caplog: pytest.LogCaptureFixture
) -> None:
    first = backbones.features(0, PLAIN[:5])
    bad = Quarantined("2.png", "is broken", 2, "cat")
    other = backbones.features(1, [*PLAIN[:2], *PLAIN[3:7]], quarantined=[bad])
    with caplog.at_level(logging.WARNING, "featcache"):
        joined = concat([first, other])
    assert joined.positions.tolist() == [0, 1, 3, 4]
    assert joined.quarantined == [
        bad,
        Quarantined("5.png", "has no row in b0/pool", 5, "dog"),
        Quarantined("6.png", "has no row in b0/pool", 6, "cat"),
    ]
    assert joined.summary.quarantined == 3
    assert joined.summary.reasons == {"is broken": 1, "has no row in b0/pool": 2}
    assert "4 rows kept, of 5 rows of b0/pool, 6 rows of b1/pool; quarantined" in caplog.text


def test_what_the_first_part_could_not_use_is_listed_without_another_warning(
    backbones: Backbones, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Quarantined("2.png", "is broken", 2, "cat")
    first = backbones.features(0, [*PLAIN[:2], *PLAIN[3:]], quarantined=[bad])
    with caplog.at_level(logging.WARNING, "featcache"):
        joined = concat([first, backbones.features(1, PLAIN)])
    assert joined.quarantined == [bad]
    assert caplog.text == ""


def test_unlabelled_rows_stay_unlabelled(backbones: Backbones) -> None:
    labels = [np.nan, 1.0, *([0.0] * (IMAGES - 2))]
    joined = concat([backbones.features(b, PLAIN, labels) for b in range(2)])
    assert joined.labels == [None, "dog", *["cat"] * (IMAGES - 2)]
    assert joined.summary.unlabelled == 1
    assert concat([joined[1:], backbones.features(2, PLAIN, y=None, classes=None)]).X.shape == (
        IMAGES - 1, 12,
    )  # fmt: skip


def test_joined_features_can_be_joined_again(backbones: Backbones) -> None:
    parts = [backbones.features(b, PLAIN) for b in range(3)]
    flat, nested = concat(parts), concat([concat(parts[:2]), parts[2]])
    assert nested.spec == flat.spec
    assert nested.arguments == flat.arguments
    assert nested.arguments["parts"] == [{"backbone": f"b{b}"} for b in range(3)]
    assert np.array_equal(np.asarray(nested.X), np.asarray(flat.X))
    assert concat(parts[:1]) is parts[0]


def test_the_key_follows_from_the_parts_and_their_order(
    backbones: Backbones, both: Features
) -> None:
    parts = list(both.spec.components()["parts"])
    assert [part["backbone"] for part in parts] == ["b0", "b1"]
    one, other = (backbones.features(b, PLAIN) for b in range(2))
    assert concat([one, other]).spec == both.spec
    keys = {one.spec.key, other.spec.key, both.spec.key, concat([other, one]).spec.key}
    assert len(keys) == 4
    assert (both.spec.backbone, both.spec.layer) == ("b0 + b1", "pool + pool")
    assert not both.spec.is_own_model
    assert not both.spec.is_imported


def test_features_that_cannot_be_joined_are_refused(backbones: Backbones) -> None:
    first, other = backbones.features(0, PLAIN), backbones.features(1, PLAIN)
    wrong = [1 - image % 2 for image in range(IMAGES)]
    bare = backbones.features(0, PLAIN, y=None, classes=None)
    renamed = backbones.features(1, PLAIN, classes=["cat", "wolf"])
    for parts, message in (
        ([], r"takes a list of features, as in concat\(\[first, second\]\)"),
        (first, "takes a list of features"),
        ([first, np.zeros((8, 3))], "takes a list of features"),
        ([first, other, first], r"same key \(b0/pool, .*give each once"),
        ([concat([first, other]), other], "same key"),
        ([first, backbones.features(1, PLAIN, classes=["dog", "cat"])], "have another order"),
        ([first, renamed], "'cat', 'wolf'.* differ"),
        ([bare, other], "put the features with labels first"),
        ([first, backbones.features(1, PLAIN, wrong)], "'0.png' has the label 'cat' in b0/pool"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            concat(parts)  # type: ignore[arg-type]


def test_too_many_parts_are_refused() -> None:
    from featcache.extraction.derived.spec import DerivedSpec

    with pytest.raises(InvalidRequest, match="1 to 64 parts"):
        DerivedSpec((), ())


def test_heads_and_searches_train_on_joined_features(both: Features) -> None:
    head = heads.LogisticHead(C=1.0).fit(both)
    assert head.n_features_in_ == 7
    same = heads.LogisticHead(C=1.0).fit(np.asarray(both.X), both.y, groups=both.ids)
    assert np.array_equal(head.predict_proba(both.X), same.predict_proba(both.X))
    found = heads.search("svm", both, param_grid={"C": [0.1]}, cv=2, n_jobs=1)
    assert found.best_estimator_ is not None
    train, test = both.split(0.5)
    assert len(train) + len(test) == IMAGES


def test_joined_features_are_exported(both: Features, tmp_path: Path) -> None:
    (file,) = both.export(tmp_path / "both.npz")
    with np.load(file) as arrays:
        assert np.array_equal(arrays["X"], expected((0, 1), PLAIN))


def test_two_image_sizes_of_one_backbone_are_joined(photos: Path, tiny_model: Any) -> None:
    plain = extract(tiny_model, photos)
    small = extract("pocket", photos, image_size=32)
    joined = featcache.concat([plain, small])
    assert joined.X.shape == (12, 8 + 256)
    assert np.array_equal(joined.X[3], np.concatenate([plain.X[3], small.X[3]]))
    assert joined.spec.is_own_model
