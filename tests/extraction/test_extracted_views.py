"""Augmented views of images: stored once, joined to labels, averaged."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featcache
from conftest import make_tiny_model, photo
from featcache import Augmentation, Features, extract
from featcache._io import disk_space
from featcache.errors import InvalidRequest, StoreWriteError
from featcache.extraction import runner
from featcache.extraction.recheck import verify_sample
from featcache.extraction.shared_decode import SharedDecode
from featcache.images.decode import load_pixels
from featcache.images.image_file import BadImage
from featcache.images.limits import Reservation
from featcache.images.views import View, parse_view, views_of

POLICY = Augmentation(rotation=0.05, zoom=0.2)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Position of each image that an extraction decodes."""
    seen: list[int] = []
    original = runner.Computation._decode

    def counting(self: runner.Computation, position: int) -> Any:
        seen.append(position)
        return original(self, position)

    monkeypatch.setattr(runner.Computation, "_decode", counting)
    return seen


def expected(features: Features, views: list[View]) -> np.ndarray[Any, Any]:
    """Return the rows that Keras itself gives for the views that the features name."""
    model = make_tiny_model()
    body = model.layers[-1].output
    network = type(model)(model.input, body)
    images = [
        views[number].apply(load_pixels(path, (16, 16), "stretch", image_id), image_id)
        for path, image_id, number in zip(features.paths, features.ids, features.views, strict=True)
    ]
    return np.asarray(network.predict(np.stack(images).astype("float32"), verbose=0))


def assert_right(features: Features, views: list[View]) -> None:
    rows = expected(features, views)
    scale = np.abs(rows).max(axis=1, keepdims=True)
    assert (np.abs(np.asarray(features.X) - rows) <= 1e-4 * scale).all()


def test_every_row_is_the_embedding_of_its_view(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, views=3, augmentation=POLICY, random_state=5)
    assert features.X.shape == (36, 8)
    assert features.views.tolist() == [0] * 12 + [1] * 12 + [2] * 12
    assert features.paths[:12] == features.paths[12:24] == features.paths[24:]
    assert features.labels is not None
    assert features.labels[:12] == features.labels[24:]
    assert_right(features, views_of(3, POLICY, 5))
    assert (features.summary.computed, features.summary.stored) == (36, 0)
    shuffled = np.random.default_rng(0).permutation(36)[:20]
    assert_right(features[shuffled], views_of(3, POLICY, 5))
    assert np.array_equal(features[shuffled].X[3:7], np.asarray(features.X)[shuffled[3:7]])


def test_view_zero_is_the_row_without_views(
    photos: Path, tiny_model: Any, decoded: list[int]
) -> None:
    alone = extract(tiny_model, photos)
    decoded.clear()
    features = extract(tiny_model, photos, views=2, augmentation="flip")
    assert (features.summary.stored, features.summary.computed) == (12, 12)
    assert np.array_equal(features[features.views == 0].X, alone.X)
    assert features.spec == alone.spec
    assert features.arguments == alone.arguments
    assert len(decoded) == 12
    assert not alone.views.any()


def test_more_views_compute_the_new_ones_alone_with_one_decode_each(
    photos: Path, tiny_model: Any, decoded: list[int]
) -> None:
    first = extract(tiny_model, photos, views=3, augmentation=POLICY)
    assert sorted(decoded) == list(range(12))
    decoded.clear()
    photo(photos / "cat" / "new.png", 99)
    more = extract(tiny_model, photos, views=5, augmentation=POLICY)
    # Two new views of 12 photos, and five of the new one.
    assert (more.summary.stored, more.summary.computed) == (36, 29)
    assert sorted(decoded) == list(range(13))
    old = np.array([path.endswith("new.png") for path in more.paths]) | (more.views > 2)
    assert np.array_equal(np.asarray(more.X)[~old], first.X)
    assert_right(more, views_of(5, POLICY))
    again = extract(tiny_model, photos, views=5, augmentation=POLICY)
    assert again.summary.computed == 0
    assert np.array_equal(again.X, more.X)


@pytest.mark.parametrize(
    "changed", [{"random_state": 1}, {"augmentation": Augmentation(rotation=0.06, zoom=0.2)}]
)
def test_another_seed_or_policy_is_another_view(
    photos: Path, tiny_model: Any, changed: dict[str, Any]
) -> None:
    one = extract(tiny_model, photos, views=2, augmentation=POLICY)
    other = extract(tiny_model, photos, **{"views": 2, "augmentation": POLICY, **changed})
    assert (other.summary.stored, other.summary.computed) == (12, 12)
    assert not np.array_equal(one[one.views == 1].X, other[other.views == 1].X)


def test_a_view_does_not_depend_on_order_batches_or_threads(
    photos: Path, tiny_model: Any, tmp_path: Path
) -> None:
    paths = sorted(map(str, photos.rglob("*.png")))
    options: dict[str, Any] = {"views": 3, "augmentation": POLICY}
    one = extract(tiny_model, paths, workers=4, **options)
    other = extract(
        tiny_model, paths[::-1], workers=1, batch_size=2, cache_dir=tmp_path / "c", **options
    )
    turned = {(p, v): row for p, v, row in zip(other.paths, other.views, other.X, strict=True)}
    for path, view, row in zip(one.paths, one.views, one.X, strict=True):
        assert np.allclose(turned[path, view], row, rtol=1e-4)


def test_the_memory_of_views_counts_as_that_of_decoding(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[int] = []
    for_decoding = Reservation.for_decoding

    def noted(self: Reservation, size: int, working: int) -> None:
        reserved.append(working)
        for_decoding(self, size, working)

    monkeypatch.setattr(Reservation, "for_decoding", noted)
    augmentation = Augmentation(zoom=0.9, rotation=0.5)
    features = extract(tiny_model, photos, views=3, augmentation=augmentation)
    height, width = features.spec.image_size
    views = views_of(3, augmentation)
    needed = {v.working_bytes(height, width, i) for v in views[1:] for i in features.example_ids}
    assert needed <= set(reserved)


def test_an_image_that_fails_has_no_row_of_any_view(photos: Path, tiny_model: Any) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    features = extract(tiny_model, photos, views=3, augmentation=POLICY)
    assert len(features) == 36
    assert len(features.quarantined) == 1
    assert (features.summary.computed, features.summary.quarantined) == (36, 1)
    again = extract(tiny_model, photos, views=3, augmentation=POLICY)
    assert again.summary.computed == 0
    assert len(again.quarantined) == 1
    assert "1 quarantined" in str(again.summary)


def test_copies_of_a_photo_share_their_views(photos: Path, tiny_model: Any) -> None:
    (photos / "cat" / "copy.png").write_bytes((photos / "cat" / "00.png").read_bytes())
    features = extract(tiny_model, photos, views=2, augmentation=POLICY)
    assert len(features) == 26
    assert features.summary.computed == 24
    mean = features.mean_views()
    assert len(mean) == 13
    assert sum(p.endswith("copy.png") for p in mean.paths) == 1


def test_a_cropped_photo_has_views_of_its_box(photos: Path, tiny_model: Any) -> None:
    table = {
        "path": [str(p) for p in sorted(photos.rglob("*.png"))[:2]] * 2,
        "left": [0, 0, 4, 4], "top": 0, "right": [12, 12, 20, 20], "bottom": 16,
    }  # fmt: skip
    pandas = pytest.importorskip("pandas")
    features = extract(
        tiny_model, pandas.DataFrame(table), crop="box", views=2, augmentation=POLICY
    )
    assert features.summary.computed == 8
    assert len(features) == 8


def test_split_keeps_all_views_of_an_image_together(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, views=4, augmentation=POLICY)
    train, test = features.split(test_size=0.25)
    assert not set(train.ids) & set(test.ids)
    assert len(train) + len(test) == 48
    assert np.bincount(test.views).tolist() == [len(set(test.ids))] * 4


def test_mean_views_is_the_mean_of_each_images_rows(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, views=3, augmentation=POLICY)
    order = np.random.default_rng(1).permutation(36)
    mean = features[order].mean_views()
    assert len(mean) == 12
    assert mean.spec == features.spec
    assert not mean.views.any()
    X = np.asarray(features.X)
    for number, path in enumerate(mean.paths):
        rows = [i for i, p in enumerate(features.paths) if p == path]
        assert np.allclose(mean.X[number], X[rows].mean(axis=0), rtol=1e-6)
        assert mean.labels is not None
        assert features.labels is not None
        assert mean.labels[number] == features.labels[rows[0]]
    assert np.allclose(mean[3:5].X, np.asarray(mean.X)[3:5])


def test_mean_views_of_unequal_numbers_of_views(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, views=3, augmentation=POLICY)
    part = features[[0, 12, 24, 1, 13]]
    mean = np.asarray(part.mean_views().X)
    X = np.asarray(part.X)
    assert np.allclose(mean, [X[:3].mean(axis=0), X[3:].mean(axis=0)], rtol=1e-6)


def test_a_frame_keeps_the_numbers_of_views(photos: Path, tiny_model: Any) -> None:
    pandas = pytest.importorskip("pandas")
    table = {"path": sorted(map(str, photos.rglob("*.png"))), "view": "side", "f7": 1.0}
    features = extract(tiny_model, pandas.DataFrame(table), views=2)
    with pytest.raises(InvalidRequest, match="column named 'view'"):
        features.to_frame()
    alone = features[features.views == 0]
    assert set(alone.to_frame()["view"]) == {"side"}
    with pytest.raises(InvalidRequest, match="column named 'f7'"):
        alone.to_frame(embeddings=True)
    assert "1 view>" in repr(features[features.views == 1])


def test_mean_views_of_the_images_alone_is_refused(photos: Path, tiny_model: Any) -> None:
    with pytest.raises(InvalidRequest, match="views=2 or more"):
        extract(tiny_model, photos).mean_views()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": 0}, "views=0 must be a whole number from 1"),
        ({"views": 3, "augmentation": "flip"}, "has two views"),
        ({"views": 2, "augmentation": "blur"}, "must be an Augmentation"),
        ({"views": 2, "random_state": -1}, "random_state=-1"),
        ({"augmentation": "flip"}, "views=2"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_read(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    for run in (extract, featcache.explain):
        with pytest.raises(InvalidRequest, match=message):
            run(make_tiny_model(), tmp_path / "no such folder", **options)


def test_more_views_than_fit_on_the_disk_are_refused_and_nothing_is_lost(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tiny_model, photos)
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: 100)
    with pytest.raises(StoreWriteError, match=r"36 views of images .* need"):
        extract(tiny_model, photos, views=4, augmentation=POLICY)
    assert extract(tiny_model, photos).summary.stored == 12


def test_explain_counts_views_and_computes_nothing(photos: Path, tiny_model: Any) -> None:
    extract(tiny_model, photos, views=2, augmentation=POLICY)
    plan = featcache.explain(tiny_model, photos, views=4, augmentation=POLICY)
    assert (plan.views, plan.images, plan.stored, plan.to_compute) == (4, 12, 24, 24)
    assert "12 images, 4 views of each: 24 stored, 24 to compute" in str(plan)


def test_ctrl_c_keeps_views_that_were_computed(
    photos: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.backbones.model import Backbone

    original, calls = Backbone.embed, []

    def interrupted(self: Backbone, pixels: Any) -> Any:
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, pixels)

    monkeypatch.setattr(Backbone, "embed", interrupted)
    options: dict[str, Any] = {"views": 3, "augmentation": POLICY, "batch_size": 5}
    with pytest.raises(KeyboardInterrupt):
        extract(tiny_model, photos, **options)
    monkeypatch.setattr(Backbone, "embed", original)
    features = extract(tiny_model, photos, **options)
    assert 0 < features.summary.stored < 36
    assert features.summary.stored + features.summary.computed == 36
    assert_right(features, views_of(3, POLICY))


def test_a_sample_of_an_augmented_store_is_verified(photos: Path, tiny_model: Any) -> None:
    features = extract(tiny_model, photos, views=2, augmentation=POLICY)
    stores = [s for s in features.summary.folder.parent.iterdir() if s != features.summary.folder]
    assert len(stores) == 1
    check = verify_sample(stores[0], photos, backbone=tiny_model)
    assert check.images == 12
    assert not check.differing


def test_a_key_names_its_view() -> None:
    for view in (*views_of(4, POLICY, 9), *views_of(2, "flip")):
        assert parse_view(view.key) == view or view.is_plain
    for text in ("", "flips", "augmented-2:1:seed 0:view 1", "augmented-1:a:seed 0:view 1"):
        assert parse_view(text) is None


def test_an_image_is_decoded_once_and_then_forgotten() -> None:
    calls: list[int] = []

    def decode(position: int) -> Any:
        calls.append(position)
        return np.full((2, 2, 3), position, np.uint8)

    positions = [i // 5 for i in range(100)]
    shared = SharedDecode(decode, positions)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(shared.get, positions))
    assert [int(image[0, 0, 0]) for image in images] == positions
    assert sorted(calls) == list(range(20))
    assert not shared._images


def test_every_view_of_an_image_fails_with_its_reason() -> None:
    def decode(position: int) -> Any:
        raise BadImage("is no image")

    shared = SharedDecode(decode, [0, 0, 0])
    for _ in range(3):
        with pytest.raises(BadImage, match="is no image"):
            shared.get(0)
    assert not shared._images


def test_a_read_that_hangs_blocks_one_thread_and_not_one_for_each_view() -> None:
    free = threading.Event()

    def decode(position: int) -> Any:
        free.wait(30)
        return np.zeros((1, 1, 3), np.uint8)

    shared = SharedDecode(decode, [0, 0], timeout=0.2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared.get, 0)
        while not shared._images:
            pass
        with pytest.raises(BadImage, match="could not be read within"):
            shared.get(0)
        free.set()
        assert first.result().shape == (1, 1, 3)


def test_the_command_takes_views_and_lists_them(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from featcache.cli.main import main

    arguments = ["pocket", str(photos), "--views", "3", "--augmentation", "zoom=0.3,rotation=0"]
    assert main(["extract", *arguments, "--random-state", "4", "-q"]) == 0
    assert "3 views" in capsys.readouterr().out
    assert main(["explain", *arguments, "--random-state", "4", "-q"]) == 0
    assert "12 images, 3 views of each: 36 stored, 0 to compute" in capsys.readouterr().out
    assert main(["ls", "-q"]) == 0
    assert "view 2 of seed 4" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["sharpen=1", "zoom=wide", "zoom=7", "flip,zoom=0.1", "zoom"])
def test_the_command_refuses_an_augmentation_that_makes_no_sense(
    photos: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from featcache.cli.main import main

    assert main(["extract", "pocket", str(photos), "--views", "2", "--augmentation", text]) == 2
    assert text.split("=")[0].split(",")[0] in capsys.readouterr().err
