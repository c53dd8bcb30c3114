"""A comparison on one class is refused in a sentence, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.contenders.base import Contender
from bench.evaluation.evaluate import evaluate
from bench.splits import Split, make_split
from conftest import photo
from featcache import Dataset
from featcache.errors import InvalidRequest


class Untouched(Contender):
    """Fails the test if it is asked for anything."""

    def prepare(self, images: Any, progress: bool | None = None) -> Mapping[str, str]:
        raise AssertionError("prepared before the split was looked at")

    def train(self, training: Any) -> None:
        raise AssertionError("trained on one class")

    def predict_proba(self, images: Any) -> Any:
        raise AssertionError("predicted without training")

    def facts(self) -> Any:
        raise AssertionError("described without training")


def split_of(folder: Path, train: list[str], test: list[str]) -> Split:
    labels = [*train, *test]
    paths = [str(photo(folder / f"{i}.png", i)) for i in range(len(labels))]
    parts = ["train"] * len(train) + ["test"] * len(test)
    split = make_split(Dataset(paths, ["cat", "dog"] * (len(labels) // 2), split=parts))
    return Split(Dataset(paths, labels), split.ids, split.train, split.test, "official")


@pytest.mark.parametrize("test", [["dog", "cat"], ["cat", "cat"]])
def test_one_class_to_train_is_named_before_anything_is_computed(
    tmp_path: Path, test: list[str]
) -> None:
    split = split_of(tmp_path, ["cat", "cat"], test)
    with pytest.raises(InvalidRequest, match=r"2 usable images of one class, 'cat', and none"):
        evaluate({"untouched": Untouched()}, split)


def test_one_class_left_by_unusable_images_is_named_too(tmp_path: Path) -> None:
    split = split_of(tmp_path, ["cat", "cat", "dog", "dog"], ["cat", "dog"])

    class LosesDogs(Untouched):
        def prepare(self, images: Any, progress: bool | None = None) -> Mapping[str, str]:
            lost = {split.ids[i] for i in split.train if split.dataset.labels[i] == "dog"}  # type: ignore[index]
            return dict.fromkeys(lost, "unreadable")

    with pytest.raises(InvalidRequest, match=r"2 usable images of one class, 'cat', and none"):
        evaluate({"loses dogs": LosesDogs()}, split)
    assert np.unique(split.codes(split.train)).size == 2
