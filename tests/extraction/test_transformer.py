"""`FeatureExtractor`: rows aligned with X, and each image computed once in all."""

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import featcache
from conftest import make_tiny_model, photo
from featcache import FeatureExtractor
from featcache._io.process_lock import process_lock
from featcache.errors import DatasetError, InvalidRequest, UnknownBackbone, UnusableImages
from featcache.store.manifest import find_stores


@pytest.fixture
def files(tmp_path):
    """Return the paths of twelve photos, and their classes."""
    paths = [str(photo(tmp_path / "photos" / f"{i:02d}.png", i)) for i in range(12)]
    return paths, ["cat", "dog"] * 6


@pytest.fixture
def pocket(tmp_path):
    return FeatureExtractor("pocket", cache_dir=tmp_path / "cache")


def rows_in(cache):
    """Return the number of rows in the only store of a cache, and the sum of its shards' rows."""
    ((folder, _),) = find_stores(cache / "stores")
    store = featcache.open_store(folder)
    return len(store), sum(len(shard.views) for shard in store._metadata.values())


def test_rows_are_those_of_extract_in_the_order_of_x(pocket, files, tmp_path):
    paths, _ = files
    X = pocket.fit_transform(paths)
    assert X.dtype == np.float32
    expected = featcache.extract("pocket", paths, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(X, expected.X[:])
    np.testing.assert_array_equal(pocket.transform(paths[::-1]), X[::-1])
    np.testing.assert_array_equal(pocket.transform([paths[3], paths[3]]), X[[3, 3]])
    assert pocket.transform([]).shape == (0, 256)


def test_every_form_of_one_column_gives_the_same_rows(pocket, files):
    paths, _ = files
    X = pocket.transform(paths)
    frame = pd.DataFrame({"file": paths})
    images = [Path(path).read_bytes() for path in paths]
    for same in (
        frame, frame["file"], frame["file"].to_numpy(), frame.to_numpy(), np.array(paths),
        np.array(paths)[:, None], tuple(paths), featcache.load_dataset(paths), images,
    ):  # fmt: skip
        np.testing.assert_array_equal(pocket.fit(same).transform(same), X)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    arrays = pocket.transform(np.stack(pixels))
    np.testing.assert_allclose(arrays, X, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pocket.transform([Image.fromarray(p) for p in pixels]), arrays)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("photos/", "One image is a list of one"),
        (b"abc", "One image is a list of one"),
        (5, "not int"),
        (None, "not NoneType"),
        (np.zeros((3, 2)), r"not the shape|the shape \(3, 2\)"),
        (pd.DataFrame({"path": ["a"], "label": ["b"]}), r"with the columns \['path', 'label'\]"),
        (np.zeros((2, 8, 8), np.uint8), "Select the column"),
        (["a.zip", "b.zip"], "'a.zip' holds several images"),
        (pd.Series([Path("a.parquet")]), "'a.parquet' holds several images"),
    ],
)
def test_what_is_no_column_of_images_is_refused(pocket, X, message):
    for method in (pocket.fit, pocket.transform):
        with pytest.raises(DatasetError, match=message):
            method(X)


def test_a_bad_image_is_an_error_that_names_it_or_a_row_of_nan(pocket, files, tmp_path):
    paths, _ = files
    good = pocket.transform(paths[:2])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    mixed = [paths[0], str(broken), str(tmp_path / "missing.png"), paths[1]]
    with pytest.raises(UnusableImages, match=r"2 of 4 images.*broken\.png.*missing\.png") as caught:
        pocket.transform(mixed)
    assert [one.position for one in caught.value.quarantined] == [1, 2]
    filled = clone(pocket).set_params(on_bad_images="nan")
    rows = filled.transform(mixed)
    np.testing.assert_array_equal(rows[[0, 3]], good)
    assert np.isnan(rows[1:3]).all()
    assert np.isnan(filled.transform([str(broken)])).all()
    with pytest.raises(UnusableImages, match="1 of 1 image"):
        pocket.transform([str(broken)])


def test_arguments_are_checked_by_fit_and_not_by_init(pocket, files):
    for change in ({"on_bad_images": "skip"}, {"pooling": "most"}):
        with pytest.raises(InvalidRequest):
            clone(pocket).set_params(**change).fit(files[0])
    with pytest.raises(UnknownBackbone):
        FeatureExtractor("pockets").fit(files[0])


def test_conventions_of_scikit_learn(pocket, files):
    paths, _ = files
    name = "FeatureExtractor"
    for check in (
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_mixin_order,
        estimator_checks.check_valid_tag_types,
    ):
        check(name, clone(pocket))
    with pytest.warns(estimator_checks.SkipTestWarning):
        estimator_checks.check_estimator(clone(pocket))
    pocket.fit(pd.DataFrame({"file": paths}))
    assert pocket.n_features_in_ == 1
    assert pocket.feature_names_in_.tolist() == ["file"]
    with pytest.raises(DatasetError, match=r"is called 'other', and was 'file' in `fit`"):
        pocket.transform(pd.DataFrame({"other": paths}))
    assert not hasattr(pocket.fit(paths), "feature_names_in_")
    names = clone(pocket).get_feature_names_out()
    assert names[0] == "featureextractor0"
    assert len(names) == 256
    pocket.transform(paths)
    assert len(pickle.dumps(pocket)) < 2000  # no embeddings
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(pocket)).transform(paths), pocket.transform(paths)
    )


def test_a_model_of_ones_own_can_be_cloned_and_used(files, tmp_path):
    extractor = FeatureExtractor(make_tiny_model(), cache_dir=tmp_path / "cache")
    X = extractor.fit_transform(files[0])
    assert X.shape == (12, 8)
    np.testing.assert_array_equal(clone(extractor).fit_transform(files[0]), X)


def test_output_as_a_dataframe_keeps_the_index(pocket, files):
    frame = pd.DataFrame({"file": files[0]}, index=[f"row {i}" for i in range(12)])
    found = pocket.set_output(transform="pandas").fit_transform(frame)
    assert found.index.tolist() == frame.index.tolist()
    assert found.columns[255] == "featureextractor255"
    assert (found.dtypes == np.float32).all()


def test_a_column_transformer_joins_embeddings_and_numbers(pocket, files):
    paths, y = files
    frame = pd.DataFrame({"age": range(12), "file": paths})
    both = ColumnTransformer([("image", pocket, ["file"]), ("rest", "passthrough", ["age"])])
    X = both.fit_transform(frame)
    assert X.shape == (12, 257)
    np.testing.assert_array_equal(X[:, :256], pocket.transform(paths))
    names = both.get_feature_names_out()[255:]
    assert names.tolist() == ["image__featureextractor255", "rest__age"]
    one = ColumnTransformer([("image", pocket, "file")])  # a column as a Series
    np.testing.assert_array_equal(one.fit_transform(frame), X[:, :256])
    assert make_pipeline(both, RidgeClassifier()).fit(frame, y).score(frame, y) > 0.9


def count_computed(monkeypatch):
    """Return a list to which each extraction adds the number of images that it computed."""
    from featcache.extraction import transformer

    counts = []
    run = transformer.extract

    def counted(*args, **options):
        features = run(*args, **options)
        counts.append(features.summary.computed)
        return features

    monkeypatch.setattr(transformer, "extract", counted)
    return counts


def test_a_search_computes_every_image_once(pocket, files, tmp_path, monkeypatch):
    paths, y = files
    counts = count_computed(monkeypatch)
    pipeline = make_pipeline(pocket, LogisticRegression(max_iter=50))
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=3)
    search.fit(paths, y)
    assert len(counts) >= 12
    assert sum(counts) == 12
    assert rows_in(tmp_path / "cache") == (12, 12)
    counts.clear()
    assert cross_val_score(pipeline, paths, y, cv=4).shape == (4,)
    search.fit(np.array(paths), y)
    assert sum(counts) == 0


def test_extractors_at_the_same_time_compute_every_image_once(pocket, files, tmp_path, monkeypatch):
    paths, _ = files
    counts = count_computed(monkeypatch)
    start = threading.Barrier(3)

    def work(part):
        start.wait()
        clone(pocket).transform(part)

    parts = [paths[:9], paths[3:], paths]
    threads = [threading.Thread(target=work, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 12
    assert rows_in(tmp_path / "cache") == (12, 12)


@pytest.mark.slow
def test_processes_of_a_search_compute_every_image_once(pocket, files, tmp_path):
    paths, y = files
    pipeline = make_pipeline(pocket, LogisticRegression(max_iter=50))
    search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=3, n_jobs=2)
    search.fit(paths, y)
    assert rows_in(tmp_path / "cache") == (12, 12)
    ((folder, _),) = find_stores(tmp_path / "cache/stores")
    before = sorted(path.name for path in folder.iterdir())
    search.fit(paths, y)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_lock_keeps_other_processes_out_and_ends_with_its_process(tmp_path):
    file = tmp_path / "a" / "lock"
    code = (
        "import pathlib, sys; from featcache._io.process_lock import process_lock\n"
        "with process_lock(pathlib.Path(sys.argv[1]), 'a test'): print('in')"
    )
    with process_lock(file, "a test"):
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE, text=True
        )
        with pytest.raises(subprocess.TimeoutExpired):
            other.communicate(timeout=2)
    assert other.communicate(timeout=60)[0] == "in\n"


def test_without_locks_nobody_waits(tmp_path):
    (tmp_path / "file").touch()
    with process_lock(tmp_path / "file" / "lock", "a test"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with process_lock(tmp_path / "link", "a test"):
        pass
    assert not (tmp_path / "elsewhere").exists()
