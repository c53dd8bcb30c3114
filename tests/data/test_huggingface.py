"""Data sets of Hugging Face: a photo in them is the same image as in a folder."""

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.errors import DatasetError

datasets = pytest.importorskip("datasets")


def extract(data, cache, **options):
    return featcache.extract("pocket", data, cache_dir=cache, progress=False, **options)


@pytest.fixture
def files(photos):
    return sorted(photos.rglob("*.png"))


@pytest.fixture
def data(files):
    features = datasets.Features({
        "image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]),
        "weight": datasets.Value("float32"), "tags": datasets.Sequence(datasets.Value("string")),
    })  # fmt: skip
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in files],
            "label": [0] * 6 + [1] * 6,
            "weight": np.arange(12) / 2,
            "tags": [["a"]] * 12,
        },
        features=features,
    )


def test_a_photo_is_the_same_image_as_in_a_folder(tmp_path, photos, data):
    first = extract(photos, tmp_path)
    same = extract(data, tmp_path)
    assert same.summary.computed == 0
    assert same.ids == first.ids
    assert same.classes == ["cat", "dog"]
    np.testing.assert_array_equal(same.y, first.y)
    assert same.paths[3] == "images[3]"
    assert list(same.attributes) == ["weight"]
    shuffled = extract(data.shuffle(seed=1).with_format("numpy"), tmp_path)
    assert shuffled.summary.computed == 0
    order = [first.ids.index(i) for i in shuffled.ids]
    assert order != list(range(12))
    np.testing.assert_array_equal(shuffled.y, first.y[order])
    np.testing.assert_array_equal(shuffled.attributes["weight"], np.array(order) / 2)


def test_the_parts_of_a_dict_become_the_split(tmp_path, data):
    test = data.select([11, 0]).map(lambda row: {**row, "label": -1})
    parts = datasets.DatasetDict({"train": data.select(range(2, 9)), "test": test})
    dataset = featcache.load_dataset(parts)
    assert dataset.split == ["train"] * 7 + ["test"] * 2
    assert dataset.labels == ["cat"] * 4 + ["dog"] * 3 + [None] * 2
    assert dataset.paths[-1] == "test[1]"
    np.testing.assert_array_equal(np.asarray(dataset.image(8)), np.asarray(data[0]["image"]))
    with pytest.raises(DatasetError, match="'other' are no train"):
        featcache.load_dataset(datasets.DatasetDict({"train": data, "other": data}))
    with pytest.raises(DatasetError, match="columns"):
        featcache.load_dataset(
            datasets.DatasetDict({"train": data, "test": data.remove_columns("label")})
        )


def test_a_streamed_data_set_is_iterated_once(tmp_path, photos, data):
    first = extract(data, tmp_path)
    stream = extract(data.to_iterable_dataset(num_shards=3).shuffle(seed=1), tmp_path)
    assert stream.summary.computed == 0
    assert sorted(stream.ids) == sorted(first.ids)
    by_id = dict(zip(first.ids, first.y, strict=True))
    assert [by_id[i] for i in stream.ids] == stream.y.tolist()
    assert stream.classes == ["cat", "dog"]
    with pytest.raises(DatasetError, match=r"data\['train'\]"):
        extract(datasets.IterableDatasetDict(train=data.to_iterable_dataset()), tmp_path)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_bad_image_is_named_and_the_others_have_their_rows(tmp_path, files, streamed):
    cells = [
        {"bytes": files[0].read_bytes(), "path": None},
        {"bytes": None, "path": str(files[1])},
        {"bytes": b"no image", "path": None},
        None,
        {"bytes": None, "path": "elsewhere.png"},
        {"bytes": None, "path": str(tmp_path / "missing.png")},
        {"bytes": files[2].read_bytes(), "path": None},
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    data = datasets.Dataset.from_dict({"image": cells, "label": list("abcdefg")}, features)
    found = extract(data.to_iterable_dataset() if streamed else data, tmp_path)
    assert found.positions.tolist() == [0, 1, 6]
    assert [found.classes[code] for code in found.y] == ["a", "b", "g"]
    reasons = [one.reason for one in found.quarantined]
    for part, reason in zip(
        ("not an image", "empty", "not that of a local file", "cannot be opened"), reasons,
        strict=True,
    ):  # fmt: skip
        assert part in reason
    assert found.ids == [extract([path], tmp_path).ids[0] for path in files[:3]]


def test_columns_are_chosen_or_refused_in_a_sentence(data):
    plain = data.rename_columns({"image": "photo", "label": "kind"})
    assert featcache.load_dataset(plain).classes == ["cat", "dog"]
    two = data.add_column("again", [1] * 12).cast_column("again", data.features["label"])
    assert featcache.load_dataset(two).attributes["again"].tolist() == ["dog"] * 12
    with pytest.raises(DatasetError, match="Several columns may have the labels"):
        featcache.load_dataset(two.rename_column("label", "fine"))
    with pytest.raises(DatasetError, match="no column of images"):
        featcache.load_dataset(data.remove_columns("image"))
    with pytest.raises(DatasetError, match="brings its own"):
        featcache.load_dataset(data, labels=[0] * 12)


def test_labels_that_are_numbers_or_missing(data, caplog):
    numbers = data.cast_column("label", datasets.Value("int64"))
    assert featcache.load_dataset(numbers).classes == [0, 1]
    unlabelled = data.remove_columns("label")
    assert featcache.load_dataset(unlabelled).labels is None
    assert not caplog.text
    assert featcache.load_dataset(unlabelled.rename_column("tags", "label")).labels is None
    assert "the column 'label' is of type List" in caplog.text


def test_a_data_set_saved_to_disk_is_read_there(tmp_path, data, photos):
    data.save_to_disk(tmp_path / "saved")
    again = datasets.load_from_disk(str(tmp_path / "saved"))
    dataset = featcache.load_dataset(again)
    image = Image.open(sorted(photos.rglob("*.png"))[7])
    np.testing.assert_array_equal(np.asarray(dataset.image(7)), np.asarray(image))
