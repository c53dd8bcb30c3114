"""Bundles of several backbones and of transformed features predict as their head does."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import write_dogs
from test_hostile_bundles import rewritten, set_to

from conftest import make_tiny_model
from featcache import Bundle, Features, Predictor, concat, extract, load_bundle, make_bundle
from featcache.cli import main
from featcache.errors import BundleError, BundleMismatch, InvalidRequest
from heads import LogisticHead
from made_features import Backbones

PLAIN = [(image, 0) for image in range(8)]


def own_model(seed: int = 0) -> Any:
    return make_tiny_model(seed=seed, side=20, width=6)


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def raw(dogs: Path, cache: Path) -> Features:
    """Features of two backbones, of other image sizes and dtypes of rows."""
    first = extract("pocket", dogs, cache_dir=cache)
    return concat([first, extract(own_model(), dogs, cache_dir=cache, row_dtype="float16")])


@pytest.fixture(scope="module")
def features(raw: Features) -> Features:
    return raw.standardize().pca(5).l2()


def trained(features: Features) -> Bundle:
    head = LogisticHead(C=1.0, calibration_folds=0).fit(features.X, features.labels)
    return make_bundle(features, head, metrics={"accuracy": 0.5}, metadata={"Data": "noise"})


@pytest.fixture(scope="module")
def bundle(features: Features) -> Bundle:
    return trained(features)


@pytest.fixture(scope="module")
def saved(bundle: Bundle, cache: Path) -> Path:
    bundle.save(cache / "joined.featcache")
    return cache / "joined.featcache"


def probabilities(predictions: list[Any]) -> np.ndarray[Any, Any]:
    return np.array([[p for _, p in sorted(one.top_classes)] for one in predictions])


def test_photos_are_predicted_as_the_head_predicts_their_features(
    bundle: Bundle, saved: Path, features: Features, dogs: Path, cache: Path
) -> None:
    paths = [features.paths[7], str(dogs / "missing.png"), features.paths[50], features.paths[7]]
    expected = bundle.classifier.predict_proba(features.X[[7, 50, 7]])
    for one in (bundle, load_bundle(saved)):
        found = one.predict(paths, top=3, backbone=own_model(), cache_dir=cache)
        assert [p.path for p in found] == paths
        assert "No such file" in str(found[1].reason)
        usable = [p for p in found if p.reason is None]
        assert np.allclose(probabilities(usable), expected, atol=1e-6)
    bad = bundle.predict([str(dogs / "no.png")], backbone=own_model(), cache_dir=cache)
    assert bad[0].reason


def test_a_predictor_runs_all_backbones(
    bundle: Bundle, saved: Path, features: Features, dogs: Path
) -> None:
    expected = bundle.predict_proba(features[[3, 40]])
    with Predictor(saved, backbone=own_model()) as predictor:
        found = predictor.predict_proba([features.paths[3], b"no image", features.paths[40]])
        assert np.allclose(found[[0, 2]], expected, atol=1e-4)
        assert np.isnan(found[1]).all()
        assert predictor.predict([]) == []
    assert repr(predictor).startswith("<closed Predictor of <Bundle of 3 classes on pocket/")
    with pytest.raises(InvalidRequest, match="was closed"):
        predictor.predict(features.paths[0])


def test_a_file_is_the_same_bundle(bundle: Bundle, saved: Path, tmp_path: Path) -> None:
    again = load_bundle(saved)
    assert (again.spec, again.arguments) == (bundle.spec, bundle.arguments)
    assert (again.metrics, again.metadata) == (bundle.metrics, bundle.metadata)
    assert [str(step) for step in again.steps] == ["standardize", "pca(5)", "l2"]
    again.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()
    assert repr(again) == repr(bundle)
    card = again.card()
    for text in (
        "of a frozen pocket and a frozen functional", "Steps on the embeddings: standardize > pca",
        "rounded to float16", "resized to 20 x 20", "frozen pocket", bundle.spec.key,
    ):  # fmt: skip
        assert text in card


def test_features_with_and_without_steps_are_predicted_alike(
    bundle: Bundle, raw: Features, features: Features
) -> None:
    expected = bundle.classifier.predict_proba(np.asarray(features.X))
    for given in (features, raw, raw.transformed_like(raw.standardize())):
        assert np.allclose(bundle.predict_proba(given), expected, atol=1e-6)


def test_other_features_are_refused(bundle: Bundle, raw: Features, cache: Path, dogs: Path) -> None:
    plain = extract("pocket", dogs, cache_dir=cache)
    with pytest.raises(BundleMismatch, match=r"of pocket/embedding, but .* of 2 backbones: <Bund"):
        bundle.predict_proba(plain)
    with pytest.raises(BundleMismatch, match=r"or were fitted on other rows.*without steps"):
        bundle.predict_proba(raw[:20].standardize())
    with pytest.raises(BundleMismatch, match="differ from those"):
        bundle.predict_proba(
            concat([extract("pocket", dogs, image_size=32, cache_dir=cache), plain])
        )
    with pytest.raises(BundleMismatch, match=r"of pocket/embedding .* 1 backbone"):
        trained(plain).predict_proba(raw)


def test_mirror_images_are_averaged(
    bundle: Bundle, raw: Features, features: Features, dogs: Path, cache: Path
) -> None:
    paths = features.paths[::20]
    options: dict[str, Any] = {"views": 2, "augmentation": "flip", "cache_dir": cache}
    both = concat([
        extract("pocket", paths, **options),
        extract(own_model(), paths, row_dtype="float16", **options),
    ])  # fmt: skip
    expected = bundle.predict_proba(both).reshape(2, len(paths), 3).mean(axis=0)
    found = bundle.predict(paths, tta=True, backbone=own_model(), cache_dir=cache)
    assert np.allclose(probabilities(found), expected, atol=1e-6)


def test_the_command_takes_a_file_per_backbone(
    dogs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{seed}.keras" for seed in range(2)]
    for seed, file in enumerate(files):
        own_model(seed).save(file)
    features = concat([extract(file, dogs) for file in files])
    bundle = trained(features)
    bundle.save(tmp_path / "b")
    assert bundle.file_options == ("--backbone", str(files[0]), "--backbone", str(files[1]))
    photo = features.paths[0]
    words = ["predict", str(tmp_path / "b"), photo, "-q", "--json"]
    assert main([*words, *bundle.file_options]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    expected = bundle.predict_proba(features[:1])[0].max()
    assert told["top_classes"][0]["probability"] == pytest.approx(expected, abs=1e-5)
    assert main([*words, "--backbone", str(files[0])]) == 2
    assert "user-defined model" in capsys.readouterr().err
    assert main([*words, *bundle.file_options[::-1][0:0], *["--backbone", str(files[0])] * 3]) == 2
    assert "of which 2 need backbone=, but 3 were given" in capsys.readouterr().err
    assert main([*words, "--weights", str(files[0])]) == 2
    assert "of which 0 need weights=, but 1 were given" in capsys.readouterr().err


def test_arguments_are_given_to_the_parts_that_need_them(dogs: Path, tmp_path: Path) -> None:
    def halved(pixels: Any) -> Any:
        return pixels * 0.5

    model = own_model()
    first = extract(model, dogs, preprocessing=halved)
    bundle = trained(concat([extract("pocket", dogs), first]))
    paths = first.paths[:2]
    new = extract(model, paths, preprocessing=halved)
    expected = bundle.predict_proba(concat([extract("pocket", paths), new]))
    one = bundle.predict(paths, backbone=model, preprocessing=halved)
    each = bundle.predict(paths, backbone=[None, model], preprocessing=[None, halved])
    assert np.allclose(probabilities(one), expected, atol=1e-6)
    assert np.allclose(probabilities(each), expected, atol=1e-6)
    assert bundle.parts[1].needs("preprocessing")
    assert not bundle.parts[0].needs("preprocessing")
    assert not bundle.parts[0].needs("weights")


def test_one_backbone_twice_with_other_steps(dogs: Path, cache: Path) -> None:
    plain = extract("pocket", dogs, cache_dir=cache)
    features = concat([plain, plain.l2()])
    found = trained(features).predict(features.paths[:3], cache_dir=cache)
    expected = trained(features).predict_proba(features[:3])
    assert np.allclose(probabilities(found), expected, atol=1e-6)


def test_imported_features_are_predicted_as_features(tmp_path: Path) -> None:
    backbones = Backbones(tmp_path / "stores")
    parts = [backbones.features(b, PLAIN) for b in range(2)]
    imported = [
        replace(p, spec=replace(p.spec, backbone=f"imported-{n}"))  # type: ignore[arg-type]
        for n, p in enumerate(parts)
    ]
    bundle = trained(concat(imported))
    assert bundle.file_options == ()
    assert bundle.predict_proba(concat(imported)).shape == (8, 2)
    assert "computed elsewhere and imported" in bundle.card()
    with pytest.raises(BundleMismatch, match="imported embeddings"):
        bundle.predict([str(tmp_path)])


def test_a_bundle_of_one_backbone_without_steps_is_written_as_before(
    dogs: Path, cache: Path, tmp_path: Path
) -> None:
    trained(extract("pocket", dogs, cache_dir=cache)).save(tmp_path / "b")
    with zipfile.ZipFile(tmp_path / "b") as archive:
        head = json.loads(archive.read("bundle.json"))
        names = set(archive.namelist())
    assert list(head) == [
        "format", "format_version", "spec", "arguments", "metrics", "about", "classes", "width",
        "temperature", "steps",
    ]  # fmt: skip
    assert head["format_version"] == 1
    assert names == {"bundle.json", "model_card.md", "arrays/0-weights.npy", "arrays/0-bias.npy"}


LIES = {
    "no parts": (set_to("parts", value=[]), "a list of 1 to 64"),
    "parts that are no list": (set_to("parts", value={"0": {}}), "a list of 1 to 64"),
    "a part that is no object": (set_to("parts", 0, value="x"), "not a valid bundle"),
    "a spec that is no object": (set_to("parts", 0, "spec", value=[]), "is not an object"),
    "a width in words": (set_to("parts", 0, "width", value="256"), "width of a part"),
    "a width that is too small": (set_to("parts", 0, "width", value=9), "takes the columns"),
    "a width that is not that of the head": (
        set_to("parts", 0, "width", value=257), "its head takes 5 values, but its features have 6",
    ),
    "a negative width": (set_to("parts", 0, "width", value=-9), "width of a part"),
    "transforms that are no list": (set_to("transforms", value={}), "at most 64"),
    "many transforms": (set_to("transforms", value=[{}] * 99), "at most 64"),
    "an unknown transform": (set_to("transforms", 0, "name", value="pickle"), "not a valid"),
    "columns that do not exist": (set_to("transforms", 2, "start", value=3), "takes the columns"),
    "an array twice": (
        set_to("transforms", 1, "arrays", "mean", "file", value="transforms/0-mean.npy"),
        "more than one array is",
    ),
    "another digest": (
        set_to("transforms", 0, "arrays", "mean", "sha256", value="0" * 64), "not those that were",
    ),
    "an unused array": (set_to("transforms", value=[]), "for width|no step uses|but its features"),
    "another width of the head": (set_to("steps", value=[]), "not a valid bundle"),
    "arguments of something else": (set_to("parts", 1, "arguments", "x", value=1), "arguments"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), LIES.values(), ids=LIES.keys())
def test_a_head_that_lies_is_refused(
    saved: Path, tmp_path: Path, change: Any, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(rewritten(saved, tmp_path / "lie", head=change))


def test_arrays_that_no_step_can_have_are_refused(saved: Path, tmp_path: Path) -> None:
    from featcache.bundle.bundle_file import _encode_array

    for values, message in (
        (np.full(262, np.nan, np.float32), "not finite"),
        (np.zeros(262), "float64"),
        (np.zeros(3, np.float32), "width 3"),
    ):
        data = _encode_array(values)
        change = set_to(
            "transforms", 0, "arrays", "mean", "sha256", value=hashlib.sha256(data).hexdigest()
        )
        members = {"transforms/0-mean.npy": data}
        with pytest.raises(BundleError, match=message):
            load_bundle(rewritten(saved, tmp_path / "lie", head=change, members=members))


def test_widths_that_the_backbones_do_not_have_are_refused(bundle: Bundle, raw: Features) -> None:
    spec: Any = bundle.spec
    moved = replace(bundle, spec=replace(spec, widths=(spec.widths[0] - 1, spec.widths[1] + 1)))
    with pytest.raises(BundleMismatch, match="was changed after it was made"):
        moved.predict_proba(raw)
    with pytest.raises(BundleMismatch, match="gives 255 values, but it gives 256"):
        Predictor(moved, backbone=own_model())
