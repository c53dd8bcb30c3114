"""No file can make a bundle do anything but predict: hostile and damaged ones are refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_bundles import make_dogs_bundle, write_dogs

import featcache
from featcache import extract, load_bundle, make_bundle
from featcache.bundle.bundle_file import _encode_array
from featcache.cli import main
from featcache.errors import BundleError, BundleMismatch
from heads import make_head


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dogs(tmp_path_factory.mktemp("dogs"))


@pytest.fixture
def made(dogs: Path, tmp_path: Path) -> tuple[featcache.Bundle, Path, Any]:
    return make_dogs_bundle(dogs, tmp_path / "dogs.featcache")


def rewritten(path: Path, target: Path, **changes: Any) -> Path:
    """Copy a bundle with other members, or none where a value is None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    kind = changes.pop("compression", zipfile.ZIP_STORED)
    members |= changes.pop("members", {})
    head = json.loads(members["bundle.json"])
    change = changes.pop("head", None)
    if change is not None:
        change(head)
        members["bundle.json"] = json.dumps(head).encode()
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def set_to(*path: Any, value: Any) -> Any:
    def change(head: Any) -> None:
        for part in path[:-1]:
            head = head[part]
        head[path[-1]] = value

    return change


HEADS_THAT_LIE = {
    "later version": (set_to("format_version", value=3), "Upgrade featcache"),
    "no format": (set_to("format", value="zip"), "does not have the format"),
    "one class": (set_to("classes", value=["a"]), "not a valid bundle"),
    "equal classes": (set_to("classes", value=["a", "a", "b"]), "distinct"),
    "classes of several types": (set_to("classes", value=[1, "b", True]), "distinct"),
    "classes of lists": (set_to("classes", value=[[1], [2], [3]]), "not a valid"),
    "unknown step": (set_to("steps", 0, "kind", value="pickle"), "not a valid"),
    "no steps": (set_to("steps", value=[]), "not a valid"),
    "many steps": (
        set_to("steps", value=[{"kind": "relu", "arrays": {}}] * 99),
        "than 16 steps",
    ),
    "wrong width": (set_to("width", value=3), "not for width 3"),
    "width in words": (set_to("width", value="many"), "not a number"),
    "no temperature": (set_to("temperature", value=0), "temperature"),
    "other hash": (
        set_to("steps", 0, "arrays", "bias", "sha256", value="0" * 64),
        "not those that were written",
    ),
    "file elsewhere": (
        set_to("steps", 0, "arrays", "bias", "file", value="../../etc/passwd"),
        "not a valid",
    ),
    "wrong spec": (set_to("spec", value={"backbone": "x"}), "not a valid"),
    "unknown argument": (set_to("arguments", "model", value="x"), "arguments"),
    "huge temperature": (set_to("temperature", value=10**400), "not a valid bundle"),
    "huge metric": (set_to("metrics", "top1", value=10**400), "not a valid bundle"),
    "image_size in words": (set_to("arguments", "image_size", value="64"), "image_size is a str"),
    "long backbone": (set_to("arguments", "backbone", value="x" * 5000), "5,000 characters"),
    "three sides": (set_to("arguments", "image_size", value=[1, 2, 3]), "two integers"),
    **{
        f"{name} {value}": (set_to("arguments", name, value=value), f"argument {name} is a")
        for name in ("preprocessing", "pooling", "weights", "resize", "layer", "backbone")
        for value in ([], {}, True)
    },
    "metric in words": (set_to("metrics", "top1", value="good"), "metric"),
}


@pytest.mark.parametrize(("change", "message"), HEADS_THAT_LIE.values(), ids=HEADS_THAT_LIE.keys())
def test_a_head_that_lies_is_refused(made: Any, tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        load_bundle(rewritten(made[1], tmp_path / "lie", head=change))


@pytest.mark.parametrize(
    ("name", "value", "component"),
    [
        ("image_size", [40, 40], "image_size"), ("pooling", "max", "pooling"),
        ("precision", "bfloat16", "precision"), ("row_dtype", "float16", "row_dtype"),
        ("resize", "pad", "resize"),
        ("preprocessing", "caffe", "preprocessing"), ("preprocessing", None, None),
        ("backbone", "mobilenet_v2", "backbone"), ("weights", "random:1", "weights"),
    ],
)  # fmt: skip
def test_arguments_that_give_other_features_are_refused_before_the_work(
    made: Any, dogs: Path, tmp_path: Path, name: str, value: Any, component: str | None
) -> None:
    lie = rewritten(made[1], tmp_path / "lie", head=set_to("arguments", name, value=value))
    cache = tmp_path / "empty"
    if component is None:  # the backbone's own rule is what it was
        assert load_bundle(lie).predict([dogs / "dark" / "00.png"], cache_dir=cache)
        return
    with pytest.raises(BundleMismatch, match=f"in {component}"):
        load_bundle(lie).predict(dogs, cache_dir=cache)
    assert not (cache / "stores").exists()


def test_a_weights_file_that_a_bundle_names_is_not_opened(
    dogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    file = tmp_path / "own.weights.h5"
    model = keras.applications.MobileNet(weights=None)
    model.save_weights(file)
    features = extract("mobilenet", dogs, weights=file, image_size=32)
    head = make_head("logistic").fit(features.X, features.labels)
    make_bundle(features, head.to_classifier()).save(tmp_path / "b")
    one = dogs / "dark" / "00.png"
    with monkeypatch.context() as patched:
        patched.setattr(
            "featcache.bundle.bundle_part.make_request",
            lambda *_, **__: pytest.fail("it is opened"),
        )
        with pytest.raises(BundleMismatch, match=r"weights= \(--weights\)"):
            load_bundle(tmp_path / "b").predict([one])
    assert main(["predict", str(tmp_path / "b"), str(one), "-q"]) == 2
    assert "--weights" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "b"), str(one), "-q", "--weights", str(file)]) == 0
    assert load_bundle(tmp_path / "b").file_options == ("--weights", str(file))
    told = load_bundle(tmp_path / "b").predict([one], weights=file)
    assert told[0].top_classes[0][0] == "dark"


def test_archives_that_are_not_plain_are_refused(made: Any, tmp_path: Path) -> None:
    path = made[1]
    with pytest.raises(BundleError, match="compressed"):
        load_bundle(rewritten(path, tmp_path / "a", compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(BundleError, match="which no step uses"):
        load_bundle(rewritten(path, tmp_path / "b", members={"code.py": b"1"}))
    with pytest.raises(BundleError, match="has no"):
        load_bundle(rewritten(path, tmp_path / "c", members={"model_card.md": None}))
    (tmp_path / "d").write_bytes(b"PK no archive")
    with pytest.raises(BundleError, match="not a valid bundle"):
        load_bundle(tmp_path / "d")
    with pytest.raises(BundleError, match="not a valid bundle"):
        load_bundle(tmp_path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "twice", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        with pytest.warns(UserWarning, match="Duplicate name"):
            new.writestr("bundle.json", b"{}")
    with pytest.raises(BundleError, match="a name occurs twice"):
        load_bundle(tmp_path / "twice")


def test_a_member_that_claims_more_than_the_file_has_is_refused(made: Any, tmp_path: Path) -> None:
    data = bytearray(made[1].read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")  # its size, unpacked
    (tmp_path / "bomb").write_bytes(data)
    with pytest.raises(BundleError, match="declares 2,147,483,648 bytes"):
        load_bundle(tmp_path / "bomb")


def test_endless_bundles_and_heads_are_not_read(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.bundle.bundle_file._MAX_HEAD_BYTES", 10)
    with pytest.raises(BundleError, match=r"bundle.json has more than 10 bytes"):
        load_bundle(made[1])
    (tmp_path / "endless").touch()
    os.truncate(tmp_path / "endless", 2**41)
    with pytest.raises(BundleError, match="it has more than"):
        load_bundle(tmp_path / "endless")


def test_parts_that_are_no_tables_are_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"an entry of bundle.json is not an object"):
        load_bundle(rewritten(made[1], tmp_path / "x", head=set_to("about", value=[])))


def test_an_array_of_a_kind_that_no_head_has_is_not_written() -> None:
    with pytest.raises(TypeError, match="cannot hold an array of complex128"):
        _encode_array(np.zeros(2, complex))


def test_an_array_with_another_header_is_refused(made: Any, tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.zeros(3, np.float32), version=(2, 0))
    data = out.getvalue()

    def change(head: Any) -> None:
        array = head["steps"][0]["arrays"]["bias"]
        array["sha256"] = hashlib.sha256(data).hexdigest()
        place.append(array["file"])

    place: list[str] = []
    rewritten(made[1], tmp_path / "y", head=change)
    path = rewritten(made[1], tmp_path / "x", head=change, members={place[0]: data})
    with pytest.raises(BundleError, match="an array has an unknown header"):
        load_bundle(path)


def test_a_pickled_array_is_never_loaded(made: Any, tmp_path: Path) -> None:
    import hashlib

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "trapped",))

    out = io.BytesIO()
    np.save(out, np.array([Trap()], object), allow_pickle=True)
    digest = hashlib.sha256(out.getvalue()).hexdigest()
    hostile = rewritten(
        made[1],
        tmp_path / "trap",
        members={"arrays/0-bias.npy": out.getvalue()},
        head=set_to("steps", 0, "arrays", "bias", "sha256", value=digest),
    )
    with pytest.raises(BundleError):
        load_bundle(hostile)
    assert not (tmp_path / "trapped").exists()


def test_every_damaged_bundle_is_refused_or_says_the_same(made: Any, tmp_path: Path) -> None:
    bundle, path, _ = made
    data = path.read_bytes()
    generator = np.random.default_rng(3)
    damaged = tmp_path / "damaged"
    refused = 0
    for place in generator.integers(0, len(data), 300):
        changed = bytearray(data)
        changed[place] ^= 1 << int(generator.integers(8))
        damaged.write_bytes(bytes(changed))
        try:
            again = load_bundle(damaged)
        except BundleError:
            refused += 1
            continue
        # Whatever is still taken for sound has the same arrays: their hashes were checked.
        for mine, theirs in zip(bundle.classifier.steps, again.classifier.steps, strict=True):
            assert all(np.array_equal(mine.arrays[k], theirs.arrays[k]) for k in mine.arrays)
    assert refused > 200
    for end in range(0, len(data), max(1, len(data) // 50)):
        damaged.write_bytes(data[:end])
        with pytest.raises(BundleError):
            load_bundle(damaged)
