"""Lazy rows slice as NumPy does; features are chosen as arrays are, and split in proportion."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featcache import Features, extract, load_dataset
from featcache.data.split import official_split, split_rows, stratified_group_split
from featcache.errors import InvalidRequest


@pytest.fixture
def features(photos: Path, tiny_model: Any) -> Features:
    return extract(tiny_model, photos, batch_size=5)


INDEXES = [
    0, -1, slice(None), slice(2, 9, 3), slice(None, None, -1), [3, 3, 0], np.array([11, 1]),
    np.arange(12) % 2 == 0, (slice(1, 4), 2), (slice(None), slice(0, 3)), ([0, 5], [1, 2]),
    (4, 3), slice(5, 5), np.array([], int),
]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_rows_index_as_numpy_does(features: Features, index: Any) -> None:
    whole = np.asarray(features.X)
    if isinstance(index, tuple) and isinstance(index[0], list):
        expected = whole[index[0]][:, index[1]]  # rows, then columns, as in a data frame
    else:
        expected = whole[index]
    got = features.X[index]
    assert np.array_equal(got, expected)
    assert got.dtype == np.float32


@pytest.mark.parametrize("index", [12, -13, [99], (0, 0, 0), "a"])
def test_indexes_out_of_range_are_errors(features: Features, index: Any) -> None:
    with pytest.raises(IndexError):
        features.X[index]


def test_a_few_rows_are_read_without_the_others(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.store.shard_reader import ShardReader

    counts: list[int] = []
    fill = ShardReader._fill

    def counting(file: Any, rows: Any, path: Any) -> None:
        counts.append(rows.nbytes)
        fill(file, rows, path)

    monkeypatch.setattr(ShardReader, "_fill", staticmethod(counting))
    few = features.X[[0, 7]]
    assert sum(counts) == few.nbytes == 2 * 4 * features.X.shape[1]


def test_features_travel_to_another_process(features: Features) -> None:
    again = pickle.loads(pickle.dumps(features))
    assert np.array_equal(np.asarray(again.X), np.asarray(features.X))


def test_asarray_refuses_to_pretend_that_nothing_is_copied(features: Features) -> None:
    with pytest.raises(ValueError, match="copy"):
        np.array(features.X, copy=False)
    assert np.asarray(features.X, dtype=np.float64).dtype == np.float64


def test_paths_that_are_not_valid_utf8_are_in_the_frame(features: Features) -> None:
    odd = ["caf\udce9.png", *features.paths[1:]]
    assert list(dataclasses.replace(features, paths=odd).to_frame()["path"]) == odd


def test_to_frame_has_a_row_an_image_and_the_embedding_on_request(features: Features) -> None:
    frame = features.to_frame(embeddings=True)
    assert list(frame.columns[:3]) == ["path", "id", "label"]
    assert frame.shape == (12, 3 + 8)
    assert np.allclose(frame["f3"], np.asarray(features.X)[:, 3])
    assert features.to_frame().shape == (12, 3)


def test_a_split_is_a_partition_with_all_classes_on_both_sides(features: Features) -> None:
    train, test = features.split(0.25, random_state=1)
    assert sorted([*train.paths, *test.paths]) == sorted(features.paths)
    assert set(train.labels or []) == set(test.labels or []) == {"cat", "dog"}


def test_a_seed_gives_one_split_and_another_seed_another(features: Features) -> None:
    splits = [features.split(0.5, random_state=s)[1].paths for s in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


group_lists = st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(group_lists, st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_group_is_ever_on_both_sides(
    rows: list[tuple[int, int]], size: float, seed: int
) -> None:
    groups, labels = [g for g, _ in rows], [label for _, label in rows]
    try:
        train, test = stratified_group_split(groups, labels, size, seed)
    except InvalidRequest:
        # Refused only if no class has two groups to part.
        firsts = {g: labels[groups.index(g)] for g in groups}
        assert all(list(firsts.values()).count(label) < 2 for label in firsts.values())
        return
    assert not {groups[i] for i in train} & {groups[i] for i in test}
    assert sorted([*train, *test]) == list(range(len(rows)))


def test_large_classes_keep_their_proportion() -> None:
    labels = [0] * 800 + [1] * 200
    _, test = stratified_group_split(range(1000), labels, 0.2, 0)
    assert np.bincount(np.array(labels)[test]).tolist() == [160, 40]


def test_the_official_split_keeps_its_test_part_and_drops_copies_from_training() -> None:
    groups, split = ["a", "b", "b", "c"], ["train", "train", "test", "test"]
    train, test = official_split(groups, split)
    assert (train.tolist(), test.tolist()) == ([0], [2, 3])


@pytest.mark.parametrize(
    ("groups", "split", "counts"),
    [
        ("ab", ["train", "train"], "2 training images and 0 test images"),
        ("ab", ["test", "test"], "0 training images and 2 test images"),
        ("aa", ["train", "test"], "0 training images and 1 test image"),  # the same image
    ],
)
def test_an_official_split_with_an_empty_part_is_refused(
    groups: str, split: list[str], counts: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"{counts}; both are needed. Give test_size="):
        official_split(groups, split)


def test_an_official_split_without_a_labelled_training_image_is_refused() -> None:
    labels, parts = [None, "cat", "dog"], ["train", "test", "test"]
    with pytest.raises(InvalidRequest, match="has no labelled training image"):
        split_rows("abc", labels, parts, None, 0)


@pytest.mark.parametrize("size", [0, 1, -0.1, 1.5])
def test_a_test_size_out_of_range_is_refused(size: float) -> None:
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        stratified_group_split([1, 2], None, size, 0)


def test_features_take_rows_and_no_pair_of_indexes(features: Features) -> None:
    with pytest.raises(IndexError, match="rows only"):
        features[0, 1]


@pytest.fixture
def files(photos: Path) -> list[str]:
    return load_dataset(photos).paths


@pytest.mark.parametrize("rows", [[0, 3], np.arange(12) < 5, slice(2, 4), 7, pd.Series([1, 2]), []])
def test_features_are_chosen_by_index_as_arrays_are(
    files: list[str], tiny_model: Any, rows: Any
) -> None:
    features = extract(tiny_model, files, labels=list(range(12)))
    chosen = features[rows]
    expected = np.atleast_1d(np.arange(12)[rows if len(np.shape(rows)) != 1 or len(rows) else []])
    if isinstance(rows, pd.Series):
        expected = rows.to_numpy()
    assert isinstance(chosen, Features)
    assert chosen.labels == expected.astype(int).tolist()
    with pytest.raises(IndexError):
        features[np.ones(5, bool)]


def test_stored_rows_take_part_in_arithmetic_and_numpys_functions(
    files: list[str], tiny_model: Any
) -> None:
    X = extract(tiny_model, files).X
    whole = np.asarray(X)
    for got, expected in (
        (X.mean(axis=0), whole.mean(axis=0)), (X - X.mean(0), whole - whole.mean(0)),
        (2 * X, 2 * whole), (np.sqrt(X * X), np.abs(whole)), (np.mean(X, axis=1), whole.mean(1)),
        (np.linalg.norm(X, axis=1), np.linalg.norm(whole, axis=1)), (X.T, whole.T),
        (np.concatenate([X, X]), np.concatenate([whole, whole])), (X @ X.T, whole @ whole.T),
        (X > 0.5, whole > 0.5), (np.maximum(0, X), np.maximum(0, whole)), (X.std(), whole.std()),
        (pd.DataFrame(X).to_numpy(), whole), (np.add.reduce(X), whole.sum(0)), (-X, -whole),
    ):  # fmt: skip
        assert np.allclose(got, expected)
    assert X.size == whole.size
    with pytest.raises(AttributeError):
        X.sort()
    with pytest.raises(TypeError, match="cannot be written"):
        np.add(X, 1, out=X)


def test_representations_are_short_and_escaped(files: list[str], tiny_model: Any) -> None:
    labels = [f"<b>{i}</b>" * 200 for i in range(12)]
    dataset = load_dataset(pd.DataFrame({"path": files, "label": labels, "note": ["x"] * 12}))
    features = extract(tiny_model, dataset)
    for shown in (repr(dataset), dataset._repr_html_(), features._repr_html_()):
        assert len(shown) < 2000
        assert "12" in shown
    for html in (dataset._repr_html_(), features._repr_html_()):
        assert "<b>" not in html
        assert html.startswith("<table>")
    assert "note (object)" in repr(dataset)
