"""Imported embeddings are kept apart from all others, row by row with their images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import featcache
from conftest import make_tiny_model, photo
from featcache import ImportedModel, extract, import_features
from featcache._io.cache_dirs import cache_folder, stores_folder
from featcache.backbones.spec import BackboneSpec, backbone_entries
from featcache.cli import main
from featcache.errors import BundleMismatch, DatasetError, InvalidRequest
from featcache.extraction import imports
from featcache.images.image_file import content_id
from heads import make_head

MODEL = ImportedModel("dinov2", "hub e1277af, CLS, 224 px")


def rows(count: int, width: int = 6, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def ids(count: int) -> list[str]:
    return [content_id(bytes([i])) for i in range(count)]


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return [str(photo(tmp_path / "photos" / f"{i}.png", i)) for i in range(5)]


def test_rows_come_back_with_ids_labels_and_order(paths: list[str]) -> None:
    X = rows(5)
    features = import_features(X, paths, MODEL, labels=list("babab"))
    assert np.array_equal(features.X, X)
    assert features.paths == paths
    assert features.ids == [content_id(Path(path).read_bytes()) for path in paths]
    assert features.labels == list("babab")
    assert (features.summary.stored, features.summary.computed) == (0, 5)
    by_id = import_features(X[::-1], features.ids[::-1], MODEL)
    assert (by_id.summary.stored, by_id.summary.computed) == (5, 0)
    assert np.array_equal(by_id.X, X[::-1])
    assert np.array_equal(featcache.open_store(features.summary.folder).read(features.ids), X)
    assert featcache.verify(features.summary.folder) == []
    train, _ = features.split(0.4)
    assert make_head("logistic").fit(train.X, train.y).classes_.tolist() == [0, 1]


def test_an_import_adds_only_new_rows_and_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_BLOCK_BYTES", 4 * 6 * 3)  # three rows per shard
    X = rows(10)
    assert import_features(X[:4], ids(4), MODEL).summary.computed == 4
    more = import_features(X, ids(10), MODEL)
    assert (more.summary.stored, more.summary.computed) == (4, 6)
    assert np.array_equal(more.X, X)
    changed = X.copy()
    changed[2, 1] += 0.01
    with pytest.raises(InvalidRequest, match=r"Row 2 of X .* differs from the stored row by 0\.01"):
        import_features(changed, ids(10), MODEL)
    both = np.concatenate([rows(1, seed=1), changed[2:3]])
    with pytest.raises(InvalidRequest, match="nothing is imported"):
        import_features(both, [content_id(b"new"), ids(3)[2]], MODEL)
    store = featcache.open_store(more.summary.folder)
    assert len(store) == 10
    assert np.array_equal(store.read(ids(10)), X)
    noise = X * (1 + 1e-7)  # another machine's rounding
    assert np.array_equal(import_features(noise, ids(10), MODEL).X, X)


def test_models_are_kept_apart() -> None:
    one = import_features(rows(3), ids(3), MODEL)
    for model in (ImportedModel("dinov2", "hub main"), ImportedModel("dinov2-", MODEL.source)):
        other = import_features(rows(3, width=4, seed=1), ids(3), model)
        assert other.summary.folder != one.summary.folder
        assert np.array_equal(one.X, rows(3))
    with pytest.raises(InvalidRequest, match=r"have 6.*give another source"):
        import_features(rows(3, width=4), ids(3), MODEL)


def test_no_computed_features_can_have_the_key_of_imported_ones(paths: list[str]) -> None:
    spec = MODEL.spec
    assert spec.is_imported
    assert not spec.is_own_model
    computed = extract(make_tiny_model(), paths).spec
    assert not computed.is_imported
    assert not any(name.startswith("imported-") for name in backbone_entries())
    # Whatever else a computed spec has, its backbone differs, and the key is a hash of it.
    for field in fields(BackboneSpec):
        if field.name != "backbone":
            same = replace(computed, **{field.name: getattr(spec, field.name)})
            assert same.key != spec.key
    assert BackboneSpec.from_components(spec.components()) == spec
    keys = {ImportedModel(n, s).spec.key for n, s in (("a", "bc"), ("ab", "c"), ("a", "bc "))}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (rows(2), "shape"), (rows(3)[0], "shape"), (rows(3)[:, :0], "shape"),
        (np.ones((3, 2), int), "floating-point"), (np.ones((3, 2), object), "floating-point"),
        (np.ones((3, 2), complex), "floating-point"),
        (np.array([[1, 2], [np.nan, 1], [1, 1]]), "Row 1 of X is not finite"),
        (np.array([[1, 2], [1, 2], [1e39, 1]]), "Row 2 of X is not finite in float32"),
        (np.ma.masked_less(rows(3), 0), "masked"), (csr_array(rows(3)), "sparse csr_array"),
    ],
)  # fmt: skip
def test_what_is_no_row_per_image_is_refused(X: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        import_features(X, ids(3), MODEL)
    assert not (stores_folder(cache_folder()) / MODEL.spec.folder).exists()


def test_rows_of_one_image_have_to_be_equal() -> None:
    X = rows(3)
    with pytest.raises(InvalidRequest, match="Rows 0 and 2 of X are of the same image but differ"):
        import_features(X, [*ids(2), ids(1)[0]], MODEL)
    X[2] = X[0]
    features = import_features(X, [*ids(2), ids(1)[0]], MODEL)
    assert (features.summary.computed, len(features)) == (2, 3)
    assert np.array_equal(features.X, X)


def test_images_that_do_not_say_their_row_are_refused(paths: list[str], tmp_path: Path) -> None:
    for images in (str(tmp_path / "photos"), "stanford-dogs"):
        with pytest.raises(DatasetError, match="which row belongs to which image"):
            import_features(rows(5), images, MODEL)
    with pytest.raises(DatasetError, match="Row 0 is an image id and row 1 is not"):
        import_features(rows(2), [ids(1)[0], paths[0]], MODEL)
    with pytest.raises(DatasetError, match="1 image cannot be read, so nothing is imported"):
        import_features(rows(2), [paths[0], str(tmp_path / "missing.png")], MODEL)
    with pytest.raises(DatasetError, match="is not an image id"):
        import_features(rows(1), featcache.Dataset(paths=["a"], ids=["AB" * 32]), MODEL)
    with pytest.raises(InvalidRequest, match="ImportedModel"):
        import_features(rows(1), paths[:1], MODEL.spec)  # type: ignore[arg-type]
    table = tmp_path / "t.csv"
    table.write_text("path,label\n" + "".join(f"{path},x\n" for path in paths))
    assert import_features(rows(5), table, MODEL).labels == ["x"] * 5


@pytest.mark.parametrize(
    ("name", "source"), [("", "x"), ("a/b", "x"), ("..", "x"), ("a" * 92, "x"), ("a", ""),
                         ("a", " "), ("a", "x" * 2001), ("a", None)],
)  # fmt: skip
def test_a_name_and_a_source_are_needed(name: str, source: Any) -> None:
    with pytest.raises(InvalidRequest):
        ImportedModel(name, source)


def test_an_array_on_disk_is_read_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_BLOCK_BYTES", 4 * 6 * 3)
    X = rows(10).astype(np.float64)
    np.save(tmp_path / "x.npy", X)
    features = import_features(np.load(tmp_path / "x.npy", mmap_mode="r"), ids(10), MODEL)
    assert np.array_equal(features.X, X.astype(np.float32))


def test_two_imports_at_once_store_each_image_once() -> None:
    X = rows(40)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: import_features(X, ids(40), MODEL), range(4)))
    assert sum(one.summary.computed for one in found) == 40
    assert all(np.array_equal(one.X, X) for one in found)


def test_a_bundle_of_imported_features_predicts_features_but_no_photos(
    tmp_path: Path, paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    features = import_features(rows(5), paths, MODEL, labels=list("babab"))
    head = make_head("logistic").fit(features.X, features.labels)
    featcache.make_bundle(features, head).save(tmp_path / "b")
    bundle = featcache.load_bundle(tmp_path / "b")
    assert np.allclose(bundle.predict_proba(features), head.predict_proba(features.X))
    assert bundle.file_options == ()
    assert "imported, so that photos cannot be predicted" in bundle.card()
    for predict in (bundle.predict, lambda photos: featcache.Predictor(bundle)):
        with pytest.raises(BundleMismatch, match="imported embeddings"):
            predict(paths)
    other = import_features(rows(5), paths, ImportedModel("dinov2", "other"))
    with pytest.raises(BundleMismatch, match="weights"):
        bundle.predict_proba(other)
    assert main(["ls"]) == 0
    assert "imported-dinov2" in capsys.readouterr().out
    assert main(["verify", features.summary.folder.name, "--sample", "2", "--data",
                 str(tmp_path / "photos")]) == 2  # fmt: skip
    assert "imported features, which featcache cannot compute again" in capsys.readouterr().err
