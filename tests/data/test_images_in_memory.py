"""Arrays, PIL images and bytes as images: what they are called, and which image each one is."""

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import featcache
from featcache.errors import DatasetError, InvalidRequest, NoUsableImages


def photos(count=6, height=40, width=56, seed=0):
    """Return different images, smooth enough that a resize keeps them apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((width, height))) for c in coarse])


def extract(data, cache, **options):
    return featcache.extract("pocket", data, cache_dir=cache, progress=False, **options)


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "png")
    return out.getvalue()


def test_an_array_gives_the_features_of_the_same_images_in_files(tmp_path):
    X = photos()
    paths = [tmp_path / f"{i}.png" for i in range(len(X))]
    for path, image in zip(paths, X, strict=True):
        path.write_bytes(png(image))
    from_files = extract(paths, tmp_path / "cache")
    from_array = extract(X, tmp_path / "cache", labels=list("ababab"))
    assert from_array.summary.computed == 6
    np.testing.assert_allclose(from_array.X[:], from_files.X[:], rtol=1e-4, atol=1e-5)
    assert from_array.spec == from_files.spec
    assert from_array.classes == ["a", "b"]
    assert from_array.y.tolist() == [0, 1] * 3
    assert from_array.paths[2] == "images[2]"


def test_an_array_is_found_again_in_another_order_and_in_a_slice(tmp_path):
    X = photos()
    first = extract(X, tmp_path)
    order = [4, 1, 5]
    again = extract(X[order], tmp_path)
    assert again.summary.computed == 0
    assert again.summary.stored == 3
    np.testing.assert_array_equal(again.X[:], first.X[order])
    more = extract(np.concatenate([X, photos(seed=1)]), tmp_path)
    assert more.summary.computed == 6


def test_arrays_pil_images_and_floats_of_the_same_pixels_are_one_image(tmp_path):
    X = photos(1)
    first = extract(X, tmp_path)
    as_float = (X / 255).astype(np.float32)
    for same in (
        [X[0]],
        [Image.fromarray(X[0])],
        np.asfortranarray(X),
        [Image.open(io.BytesIO(png(X[0])))],
    ):
        assert extract(same, tmp_path).ids == first.ids
    for low, high in ((0, 1), (-1, 1), (0, 255)):
        scaled = as_float * (high - low) + low
        assert extract(scaled, tmp_path, value_range=(low, high)).ids == first.ids


def test_a_grey_image_is_the_same_as_its_rgb_version(tmp_path):
    grey = photos(2)[..., :1]
    first = extract(grey, tmp_path)
    assert extract(np.repeat(grey, 3, axis=-1), tmp_path).ids == first.ids
    assert extract([g[..., 0] for g in grey], tmp_path).ids == first.ids


def test_bytes_are_the_image_of_the_file_with_that_content(tmp_path):
    data = [png(image) for image in photos(3)]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, content in zip(paths, data, strict=True):
        path.write_bytes(content)
    assert extract(data, tmp_path).ids == extract(paths, tmp_path).ids


def test_images_of_other_shape_with_the_same_bytes_differ(tmp_path):
    flat = np.arange(4 * 6 * 3, dtype=np.uint8)
    both = [flat.reshape(4, 6, 3), flat.reshape(6, 4, 3)]
    assert len(set(extract(both, tmp_path).ids)) == 2


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).map(
        lambda s: (*s[:2], 3))),
    st.sampled_from([(0, 1), (-1, 1), (0, 255), (-0.5, 0.5)]),
)  # fmt: skip
def test_every_value_of_uint8_survives_a_range_of_floats(image, value_range):
    from featcache.images.raw_pixels import decode_pixels, encode_pixels, pixels_from

    low, high = value_range
    scaled = image / 255 * (high - low) + low
    data = encode_pixels(pixels_from(scaled, value_range))
    np.testing.assert_array_equal(np.asarray(decode_pixels(data)), image)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((3, 8, 8)), "One image is a list of one"),
        (np.zeros((2, 3, 8, 8), np.uint8), "numpy.moveaxis"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"not \(2, 8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), "has no images"),
        (np.zeros((2, 8, 8, 3), np.float32), "value_range="),
        (np.zeros((2, 8, 8, 3), np.int64), "value_range="),
        (Image.new("RGB", (8, 8)), "One image is a list of one"),
        (b"\xff\xd8\xff", "One image is a list of one"),
        ([np.zeros((8, 8, 3), np.uint8), "a.jpg"], "item 1 is str"),
        ([np.zeros((8, 8, 3), np.uint8), None], "item 1 is NoneType"),
        ([None, None], "row 1 is empty"),
        ([(np.zeros((8, 8, 3), np.uint8), "a")], r"holds tuples\. Pass the images alone"),
        (pd.DataFrame({"image": [b"bytes"]}), "row 1 is of type bytes.*are passed as a list"),
        (np.array(["a.png", None], object), "row 2 is empty"),
        ([], "is empty"),
    ],
)
def test_what_is_no_list_of_images_is_refused_in_a_sentence(data, message):
    with pytest.raises(DatasetError, match=message):
        featcache.load_dataset(data)


@pytest.mark.parametrize("form", [np.array, pd.Series, lambda paths: np.array(paths, object)])
def test_a_column_of_paths_is_a_list_of_paths(tmp_path, form):
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for path, image in zip(paths, photos(2), strict=True):
        Path(path).write_bytes(png(image))
    dataset = featcache.load_dataset(form(paths), ["a", "b"])
    assert list(dataset.paths) == paths
    assert dataset.labels == ["a", "b"]


def test_what_no_file_of_images_is_says_what_to_do(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    os.mkfifo(tmp_path / "b.zip")
    for name, message in (("a.npy", "with numpy.load"), ("b.zip", "is not a regular file")):
        with pytest.raises(DatasetError, match=message):
            featcache.load_dataset(tmp_path / name)


@pytest.mark.parametrize("value_range", [(1, 0), (0, float("nan")), (0,), "01", 5, (0, 0)])
def test_a_value_range_is_two_numbers(value_range):
    with pytest.raises(InvalidRequest, match="values of black and white"):
        featcache.load_dataset(photos(1) / 255, value_range=value_range)


def test_labels_must_be_one_for_each_image():
    with pytest.raises(DatasetError, match="3 values of 'labels'"):
        featcache.load_dataset(photos(4), labels=[0, 1, 0])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (np.zeros((8, 8), complex), "dtype complex128"),
        (np.zeros((8, 8, 4), np.uint8), "drop the alpha channel"),
        (np.zeros((3, 8, 8), np.uint8), "move the channels"),
        (np.full((8, 8, 3), np.nan), "not finite"),
        (np.full((8, 8, 3), 255.0), "outside value_range"),
        (np.zeros((0, 8, 3), np.uint8), "has no pixels"),
        (b"no image", "not an image"),
        (b"", "empty"),
        (b"\x93FEATCACHE-RGB-1\n\0\0", "cut off"),
        (b"\x93FEATCACHE-RGB-1\n" + b"\xff" * 8, "the limit is"),
        (b"\x93FEATCACHE-RGB-1\n\1\0\0\0\1\0\0\0ab", "2 bytes of pixels do not make 1 x 1"),
        (Image.new("F", (4, 4)), "floating-point"),
    ],
)
def test_a_bad_image_is_named_and_the_others_have_their_rows(tmp_path, bad, reason):
    good = photos(2)
    features = extract([good[0], bad, good[1]], tmp_path, value_range=(0, 1), labels=[7, 8, 9])
    assert len(features) == 2
    assert features.positions.tolist() == [0, 2]
    assert [features.classes[code] for code in features.y] == [7, 9]
    (failed,) = features.quarantined
    assert failed.path == "images[1]"
    assert reason in failed.reason
    np.testing.assert_array_equal(features.X[:], extract(good, tmp_path).X[:])


def test_an_array_that_changes_during_the_extraction_gives_no_wrong_row(tmp_path):
    X = photos(2)
    dataset = featcache.load_dataset(X)
    ids = [found.image_id for found in dataset.source.identify(tmp_path, 1)]
    X[1] = 0
    named = featcache.Dataset(dataset.paths, ids=ids, images=dataset.images)
    features = extract(named, tmp_path)
    assert features.positions.tolist() == [0]
    assert "was replaced" in features.quarantined[0].reason
    with pytest.raises(NoUsableImages):
        extract(named.take([1]), tmp_path)


def test_views_boxes_and_predictions_work_with_arrays(tmp_path):
    X, y = photos(12), ["a", "b"] * 6
    views = extract(X, tmp_path, labels=y, views=3)
    assert views.X.shape == (36, 256)
    table = {"left": [0] * 12, "top": [0] * 12, "right": [20] * 12, "bottom": [20] * 12}
    whole = featcache.load_dataset(X)
    boxes = featcache.Dataset(whole.paths, y, attributes=table, images=whole.images)
    cropped = extract(boxes, tmp_path, crop="box")
    np.testing.assert_allclose(
        cropped.X[:], extract(np.ascontiguousarray(X[:, :20, :20]), tmp_path).X[:], rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip
    import heads

    features = extract(X, tmp_path, labels=y)
    bundle = featcache.make_bundle(features, heads.LogisticHead().fit(features))
    found = bundle.predict(X[:3], cache_dir=tmp_path, progress=False)
    assert [one.path for one in found] == ["images[0]", "images[1]", "images[2]"]


def test_a_comparison_reads_arrays(tmp_path):
    import bench

    X = photos(40)
    X[::2] //= 3
    dataset = featcache.load_dataset(X, labels=["dark", "bright"] * 20)
    split = bench.make_split(dataset, 0.5, cache_dir=tmp_path)
    contender = bench.CachedHead("pocket", "logistic", cache_dir=tmp_path)
    results = bench.evaluate({"pocket": contender}, split, progress=False)
    assert results["pocket"].metrics["top1"] > 0.8
