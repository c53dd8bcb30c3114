"""The table of breeds is complete, keeps its own rules, and is found by any spelling of a class."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from featcache.datasets import BreedTraits, traits, traits_of
from featcache.datasets.breed_traits import COAT_LENGTHS, COAT_TYPES, COLOURS, FCI_GROUPS, SIZES
from featcache.errors import InvalidRequest

BREEDS = traits("stanford-dogs")
ROWS = list(BREEDS.values())


def test_each_of_the_120_classes_has_one_row_with_its_own_id() -> None:
    assert len(BREEDS) == len({row.wordnet_id for row in ROWS}) == 120
    assert all(re.fullmatch(r"n\d{8}", row.wordnet_id) for row in ROWS)
    assert all(name == row.class_name for name, row in BREEDS.items())


def test_ids_and_names_are_those_of_the_published_list() -> None:
    folder = os.environ.get("FEATCACHE_TEST_DATA")
    file = Path(folder or ".") / "stanford_dogs_official_split.csv"
    if not file.is_file():
        pytest.skip("FEATCACHE_TEST_DATA names no folder with stanford_dogs_official_split.csv")
    with open(file, newline="", encoding="utf-8") as lines:
        listed = {(row["photo"].partition("_")[0], row["label"]) for row in csv.DictReader(lines)}
    assert {(r.wordnet_id, r.class_name.lower().replace(" ", "_")) for r in ROWS} == listed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.wordnet_id)
def test_every_value_is_of_its_closed_list(row: BreedTraits) -> None:
    assert row.size in SIZES
    assert row.coat_length in COAT_LENGTHS
    assert row.coat_type in COAT_TYPES
    assert row.colours
    assert len(set(row.colours)) == len(row.colours)
    assert set(row.colours) <= set(COLOURS)
    assert row.fci_group is None or 1 <= row.fci_group <= len(FCI_GROUPS)
    assert 10 < row.height_cm[0] <= row.height_cm[1] < 100
    assert (row.coat_length == "hairless") == (row.coat_type == "hairless")
    assert row.coat_type != "smooth" or row.coat_length == "short"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.wordnet_id)
def test_the_size_follows_from_the_heights_or_from_the_weight_in_the_note(row: BreedTraits) -> None:
    middle = sum(row.height_cm) / 2
    weight = re.search(r"Giant by weight: (\d+) to (\d+) kg", row.note)
    if weight:
        assert (int(weight[1]) + int(weight[2])) / 2 >= 50
        expected = "giant"
    else:
        expected = SIZES[sum(middle >= limit for limit in (36, 54, 70))]
    assert row.size == expected


def test_only_wild_dogs_and_two_coonhounds_belong_to_no_group() -> None:
    assert {row.class_name for row in ROWS if row.group == "not recognised"} == {
        "Bluetick", "Redbone", "Dingo", "Dhole", "African hunting dog",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["Afghan hound", "afghan_hound", "AFGHAN HOUND", "n02088094", "n02088094-Afghan_hound"],
)
def test_a_class_is_found_by_any_spelling(name: str) -> None:
    assert name in BREEDS
    assert BREEDS[name].class_name == "Afghan hound"


@pytest.mark.parametrize("name", ["tabby", "", 3, None])
def test_what_is_no_class_is_not_there(name: object) -> None:
    assert name not in BREEDS
    assert BREEDS.get(name) is None  # type: ignore[call-overload]
    assert traits_of([name]) is None


def test_own_data_sets_have_traits_if_all_their_classes_are_breeds() -> None:
    assert traits_of(["beagle", "Great_Dane"]) is BREEDS
    assert traits_of(["beagle", "tabby"]) is None
    assert traits_of([]) is None


def test_the_rows_make_a_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(BREEDS.records())
    assert len(frame) == 120
    assert frame.drop(columns=["fci_group"]).notna().all(axis=None)
    assert set(frame.columns) >= {"class_name", "size", "coat_length", "colours", "group"}


def test_a_data_set_without_traits_is_told_which_have_them() -> None:
    with pytest.raises(InvalidRequest, match=r"of 'oxford-pets'; data sets with traits: stanford-"):
        traits("oxford-pets")
