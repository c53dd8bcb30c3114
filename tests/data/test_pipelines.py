"""Images from tf.data, Keras, PyTorch and generators: read once, found again in any order."""

import gc
import os

import numpy as np
import pytest
from PIL import Image

import featcache
from featcache.data import pipelines, spool
from featcache.errors import DatasetError, StoreWriteError


def photos(count=6, side=32, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side))) for c in coarse])


def extract(data, cache, **options):
    return featcache.extract("pocket", data, cache_dir=cache, progress=False, **options)


X = photos()
Y = [0, 1, 2, 0, 1, 2]


def torch_like(name, **members):
    """Return a class that looks as if it were one of torch.utils.data."""
    return type(name, (), {"__module__": "torch.utils.data", **members})


class Tensor:
    """A stand-in for a tensor of PyTorch."""

    def __init__(self, array):
        self.array = np.asarray(array)

    def detach(self):
        return self

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        return self.array


Tensor.__module__ = "torch"


def batches(*, size=4, order=range(6)):
    order = list(order)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield X[rows], np.array(Y)[rows]


def check(features, order=range(6)):
    """Check that rows and labels belong to each other."""
    assert [int(features.classes[code]) for code in features.y] == [Y[i] for i in order]
    assert features.summary.quarantined == 0


def test_a_generator_of_batches_is_found_again_after_a_shuffle(tmp_path):
    first = extract(batches(), tmp_path)
    check(first)
    assert first.summary.computed == 6
    order = [5, 3, 1, 0, 2, 4]
    again = extract(batches(order=order, size=1), tmp_path)
    check(again, order)
    assert again.summary.computed == 0
    np.testing.assert_array_equal(again.X[:], first.X[:][order])
    assert extract(X, tmp_path).ids == first.ids


@pytest.mark.parametrize(
    "elements",
    [
        [(x, y) for x, y in zip(X, Y, strict=True)],
        [{"image": x, "label": y} for x, y in zip(X, Y, strict=True)],
        [{"image": X, "label": np.array(Y)}],
        [(X, np.eye(3)[Y])],
        [(X, np.array(Y)[:, None].astype(np.float32))],
        [(x, np.eye(3)[y], 0.5) for x, y in zip(X, Y, strict=True)],
        [[Tensor(np.moveaxis(X, -1, 1)), Tensor(Y)]],
        [(Tensor(np.moveaxis(x, -1, 0)), Tensor(y)) for x, y in zip(X, Y, strict=True)],
        [(Image.fromarray(x), y) for x, y in zip(X, Y, strict=True)],
        [(list(X), Y)],
    ],
)
def test_images_and_labels_in_every_form_are_the_same(tmp_path, elements):
    features = extract(iter(elements), tmp_path)
    check(features)
    assert features.ids == extract(X, tmp_path).ids


def test_batches_of_grey_images_and_bytes_are_taken_apart(tmp_path):
    import io

    out = io.BytesIO()
    Image.fromarray(X[0]).save(out, "png")
    data = np.array([out.getvalue()] * 2, object)
    assert len(extract(iter([(data, [0, 1])]), tmp_path)) == 2
    grey = extract(iter([(X[..., 0], Y)]), tmp_path)
    assert grey.ids == extract(X[..., :1], tmp_path).ids
    assert len(extract(iter([X[0, ..., :1], X[1]]), tmp_path)) == 2


def test_a_bad_image_of_a_stream_is_named_and_the_others_have_their_rows(tmp_path):
    elements = [(X[0], 0), (X[1][..., :2], 1), (X[2], 2)]
    features = extract(iter(elements), tmp_path)
    assert features.positions.tolist() == [0, 2]
    assert [features.classes[code] for code in features.y] == [0, 2]
    assert features.quarantined[0].path == "images[1]"
    assert "shape" in features.quarantined[0].reason


def test_a_stream_without_labels_takes_those_given(tmp_path):
    features = extract((x for x in X), tmp_path, labels=Y)
    check(features)
    with pytest.raises(DatasetError, match="Leave out one"):
        extract(batches(), tmp_path, labels=Y)
    with pytest.raises(DatasetError, match="5 values of 'labels'"):
        extract((x for x in X), tmp_path, labels=Y[:5])


def test_a_generator_of_paths_is_still_a_list_of_paths(tmp_path):
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    dataset = featcache.load_dataset(path for path in [tmp_path / "a.png"])
    assert dataset.paths == [str(tmp_path / "a.png")]


def failing():
    yield X[0]
    raise OSError("the disk is gone")


def endless():
    while True:
        yield X[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([]), "no image"),
        (iter([(X, [0, 1])]), "6 images came with 2 labels"),
        (iter([(X[0], np.array([1, 1, 0]))]), "not one-hot"),
        (iter([(X[0], 1, 2, 3)]), "4 values at a time"),
        (iter([{"pixels": X[0]}]), "keys 'pixels'"),
        (iter([(X[0] / 255, 1)]), "value_range"),
        (iter([("a.jpg", 1)]), "paths"),
        (iter([(b"photos/a.JPG", 1)]), "paths, such as 'photos/a.JPG'"),
        (iter([X[None]]), "shape"),
        (iter([Tensor(np.zeros((3, 8, 3), np.uint8))]), "first or the last axis"),
        (iter([(X[0], 1), (X[1], "cat")]), "several types"),
        (failing(), "failed after 1 elements: OSError: the disk is gone"),
        (endless(), "without an end"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path, data, message, monkeypatch):
    monkeypatch.setattr(pipelines, "MAX_IMAGES", 50)
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(data, cache_dir=tmp_path)


def test_an_open_file_is_no_stream(tmp_path):
    (tmp_path / "a").write_bytes(b"1\n2\n")
    with open(tmp_path / "a", "rb") as file, pytest.raises(DatasetError, match="open file"):
        featcache.load_dataset(file)


def open_files():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files")
def test_nothing_of_the_temporary_file_stays(tmp_path):
    gc.collect()
    before = open_files()
    dataset = featcache.load_dataset(batches(), cache_dir=tmp_path)
    assert os.listdir(tmp_path / "spool") == []
    assert open_files() == before + 1
    part = dataset.take([3, 3, 1])
    del dataset
    np.testing.assert_array_equal(np.asarray(part.image(0)), X[3])
    np.testing.assert_array_equal(np.asarray(part.image(2)), X[1])
    del part
    gc.collect()
    assert open_files() == before


def test_equal_images_are_kept_once(tmp_path):
    kept = spool.Spool(tmp_path)
    entries = [kept.append(b"abc"), kept.append(b"d"), kept.append(b"abc")]
    kept.finish()
    assert entries[0] == entries[2]
    sizes = []
    assert [kept.read(entry, sizes.append) for entry in entries] == [b"abc", b"d", b"abc"]
    assert sizes == [3, 1, 3]


def test_a_full_disk_is_noticed_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr("featcache._io.disk_space.free_bytes", lambda folder: 100 * 2**20)
    with pytest.raises(StoreWriteError, match="The images of the stream need"):
        featcache.load_dataset(batches(), cache_dir=tmp_path)


def test_a_map_style_data_set_is_read_again(tmp_path):
    reads = []

    def item(self, i):
        reads.append(i)
        if i == 3:
            raise ValueError("broken file")
        return Tensor(np.moveaxis(X[i], -1, 0)), Y[i]

    names = ["ant", "bee", "cow"]
    kind = torch_like("Photos", __getitem__=item, __len__=lambda self: 6, classes=names)
    features = extract(kind(), tmp_path)
    assert features.positions.tolist() == [0, 1, 2, 4, 5]
    assert "ValueError: broken file" in features.quarantined[0].reason
    assert [features.classes[code] for code in features.y] == ["ant", "bee", "cow", "bee", "cow"]
    assert features.classes == names
    subset = torch_like(
        "Subset", __getitem__=lambda self, i: (X[5 - i], Y[5 - i]), __len__=lambda self: 2
    )()
    subset.dataset = kind()
    again = extract(subset, tmp_path)
    assert again.summary.computed == 0
    assert again.classes == names


def test_names_of_classes_are_not_used_for_changed_labels(tmp_path):
    kind = torch_like(
        "Photos", __getitem__=lambda self, i: (X[i], Y[i] + 5), __len__=lambda self: 6,
        classes=["ant", "bee", "cow"], target_transform=lambda y: y + 5,
    )  # fmt: skip
    assert featcache.load_dataset(kind(), cache_dir=tmp_path).classes == [5, 6, 7]
    kind.target_transform = None
    with pytest.raises(DatasetError, match="A label is 5"):
        featcache.load_dataset(kind(), cache_dir=tmp_path)


def test_random_augmentation_is_noticed(tmp_path):
    generator = np.random.default_rng(0)
    kind = torch_like(
        "Photos", __len__=lambda self: 6,
        __getitem__=lambda self, i: X[i] // np.uint8(generator.integers(1, 9)),
    )  # fmt: skip
    with pytest.raises(DatasetError, match="Remove random transforms"):
        featcache.load_dataset(kind(), cache_dir=tmp_path)


@pytest.mark.parametrize("length", [0, 10**9])
def test_a_map_style_data_set_has_a_length(length):
    kind = torch_like("Photos", __getitem__=lambda self, i: X[0], __len__=lambda self: length)
    with pytest.raises(DatasetError, match="items"):
        featcache.load_dataset(kind())
    with pytest.raises(DatasetError, match="no length"):
        featcache.load_dataset(torch_like("Photos", __getitem__=lambda self, i: X[0])())


def test_a_data_loader_is_a_stream_with_the_classes_of_its_data_set(tmp_path):
    kind = torch_like("DataLoader", __iter__=lambda self: batches(), __len__=lambda self: 2)
    loader = kind()
    loader.dataset = torch_like("Photos", classes=["ant", "bee", "cow"])()
    features = extract(loader, tmp_path)
    assert features.classes == ["ant", "bee", "cow"]
    assert features.y.tolist() == Y
    assert extract(loader, tmp_path).summary.computed == 0


def test_keras_sequences_are_read_batch_by_batch(tmp_path):
    import keras

    class Photos(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return X[2 * i : 2 * i + 2], np.eye(3)[Y[2 * i : 2 * i + 2]]

    check(extract(Photos(), tmp_path))

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, i):
            return X

    with pytest.raises(DatasetError, match="no end"):
        featcache.load_dataset(Endless(), cache_dir=tmp_path)


def test_tf_data_in_every_form(tmp_path):
    import tensorflow as tf

    plain = tf.data.Dataset.from_tensor_slices((X, Y))
    first = extract(plain, tmp_path)
    check(first)
    assert first.ids == extract(X, tmp_path).ids
    for same in (
        plain.batch(4),
        plain.map(lambda x, y: {"image": x, "label": y, "id": "a"}).batch(4),
        plain.map(lambda x, y: (x, tf.one_hot(y, 3))),
        plain.map(lambda x, y: (tf.io.encode_png(x), tf.strings.as_string(y))),
    ):
        check(extract(same, tmp_path))
    shuffled = extract(plain.shuffle(6).batch(4), tmp_path)
    assert shuffled.summary.computed == 0
    by_id = dict(zip(first.ids, Y, strict=True))
    assert [by_id[i] for i in shuffled.ids] == [shuffled.classes[c] for c in shuffled.y]
    floats = plain.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))
    assert extract(floats, tmp_path, value_range=(0, 1)).ids == first.ids
    with pytest.raises(DatasetError, match="value_range"):
        extract(floats, tmp_path)
    with pytest.raises(DatasetError, match="no end"):
        extract(plain.repeat(), tmp_path)
    with pytest.raises(DatasetError, match="failed after 0 elements"):
        extract(plain.map(lambda x, y: tf.io.decode_png(b"no")), tmp_path)


@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
def test_image_dataset_from_directory(tmp_path, photos, label_mode):
    import keras

    data = keras.utils.image_dataset_from_directory(
        photos, label_mode=label_mode, image_size=(16, 16), batch_size=5, seed=1, verbose=False
    )
    features = extract(data, tmp_path, value_range=(0, 255))
    assert extract(data, tmp_path, value_range=(0, 255)).summary.computed == 0
    assert len(features) == 12
    if label_mode is not None:
        assert features.classes == ["cat", "dog"]
        assert features.y.sum() == 6


def test_a_bundle_predicts_the_images_of_a_stream(tmp_path):
    import heads

    features = extract(batches(), tmp_path)
    bundle = featcache.make_bundle(features, heads.LogisticHead(C=1.0).fit(features))
    found = bundle.predict(
        ((x / 255, y) for x, y in batches()),
        value_range=(0, 1), cache_dir=tmp_path, progress=False,
    )  # fmt: skip
    assert [one.path for one in found] == [f"images[{i}]" for i in range(6)]
    assert os.listdir(tmp_path / "spool") == []
