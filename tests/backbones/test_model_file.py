"""Saved models from elsewhere: used like a model that is passed, or refused before they can act."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import featcache
from featcache.backbones.model_file import inspect_model_file, is_model_file
from featcache.cli import main
from featcache.errors import BundleMismatch, InvalidRequest, ModelRefused


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    tiny_model.save(path)
    return path


def rebuilt(
    source: Path,
    target: Path,
    config: Callable[[dict[str, Any]], Any] = lambda c: c,
    weights: Callable[[bytes], bytes] = lambda b: b,
    more: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a model file again with something in it changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                data = json.dumps(config(json.loads(data))).encode()
            if name == "model.weights.h5":
                data = weights(data)
            new.writestr(name, data)
        for name, data in (more or {}).items():
            new.writestr(name, data)
    return target


class TestUse:
    def test_a_file_gives_the_rows_and_the_store_of_the_model_in_it(
        self, saved: Path, tiny_model: Any, photos: Path
    ) -> None:
        passed = featcache.extract(tiny_model, photos)
        named = featcache.extract(str(saved), photos)
        assert named.summary.computed == 0
        assert named.summary.folder == passed.summary.folder
        assert np.array_equal(named.X, passed.X)
        assert named.summary.backbone == "tiny"

    def test_a_full_hit_needs_no_keras(self, saved: Path, photos: Path) -> None:
        featcache.extract(saved, photos)
        code = (
            "import sys, featcache, numpy\n"
            f"f = featcache.extract({str(saved)!r}, {str(photos)!r})\n"
            "numpy.asarray(f.X)\n"
            "print(f.summary.computed, 'keras' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["0", "False"]

    def test_another_model_under_the_same_name_is_another_store(
        self, saved: Path, photos: Path, tmp_path: Path
    ) -> None:
        import keras

        path = tmp_path / "model.keras"
        path.write_bytes(saved.read_bytes())
        first = featcache.extract(path, photos)
        model = featcache.load_model(saved)
        model.set_weights([2 * np.asarray(w) for w in model.weights])
        model.save(path)
        second = featcache.extract(path, photos)
        assert isinstance(model, keras.Model)
        assert second.summary.computed == len(second)
        assert first.spec.weights != second.spec.weights

    def test_the_rule_is_asked_for_unless_the_network_rescales(
        self, photos: Path, tmp_path: Path
    ) -> None:
        import keras

        inputs = keras.Input((None, None, 3))
        outputs = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
        keras.Model(inputs, outputs).save(tmp_path / "open.keras")
        with pytest.raises(
            InvalidRequest, match="input size is open, so image_size= must be given"
        ):
            featcache.extract(tmp_path / "open.keras", photos, preprocessing="unit")
        with pytest.raises(InvalidRequest, match="How are images prepared"):
            featcache.extract(tmp_path / "open.keras", photos, image_size=16)
        found = featcache.extract(
            tmp_path / "open.keras", photos, image_size=16, preprocessing="unit"
        )
        assert found.X.shape == (12, 4)

    def test_a_bundle_asks_for_its_model_file_and_opens_none_itself(
        self, saved: Path, photos: Path, tmp_path: Path
    ) -> None:
        from heads import make_head

        path = tmp_path / "moving.keras"
        path.write_bytes(saved.read_bytes())
        features = featcache.extract(path, photos)
        assert features.y is not None
        head = make_head("logistic").fit(features.X, features.y)
        featcache.make_bundle(features, head.to_classifier(["cat", "dog"])).save(tmp_path / "b")
        bundle = featcache.load_bundle(tmp_path / "b")
        expected = bundle.predict(photos, backbone=path)
        with pytest.raises(BundleMismatch, match="--backbone"):
            bundle.predict(photos)  # though the file that it names is there
        path.rename(tmp_path / "moved.keras")
        assert bundle.predict(photos, backbone=tmp_path / "moved.keras") == expected
        names = [str(tmp_path / "b"), str(photos / "cat" / "00.png")]
        assert main(["predict", *names, "--backbone", str(tmp_path / "moved.keras")]) == 0

    def test_models_with_layers_of_keras_and_a_compiled_loss_are_taken(
        self, tmp_path: Path, photos: Path
    ) -> None:
        import keras

        inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(3, 3)])
        inputs = keras.Input((16, 16, 3))
        x = inner(keras.ops.image.resize(inputs, (8, 8)) / 255 - 1)
        outputs = keras.layers.GlobalMaxPooling2D()(keras.layers.LeakyReLU(0.1)(x))
        model = keras.Model(inputs, outputs)
        model.compile("adam", "mse")
        model.save(tmp_path / "model.keras")
        found = featcache.extract(tmp_path / "model.keras", photos, preprocessing="none")
        assert found.X.shape == (12, 3)


def test_a_weights_file_in_the_place_of_a_model_is_named_as_such(
    tiny_model: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.weights.h5"
    tiny_model.save_weights(path)
    for options in ([], ["--allow-h5"]):
        assert main(["extract", str(path), str(photos), "-q", *options]) == 2
        told = capsys.readouterr().err
        assert "contains weights only" in told
        assert "as weights= (--weights)" in told
        assert "code" not in told


@pytest.mark.filterwarnings("ignore:.*legacy.*", "ignore:.*lambda.*", "ignore:.*HDF5.*")
class TestOldFormat:
    def test_it_is_refused_unless_it_is_allowed(
        self, tiny_model: Any, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "old.h5"
        tiny_model.save(path)
        with pytest.raises(ModelRefused, match="allow_h5=True"):
            featcache.extract(path, photos)
        assert main(["extract", str(path), str(photos), "-q"]) == 2
        assert "--allow-h5" in capsys.readouterr().err
        assert main(["extract", str(path), str(photos), "-q", "--allow-h5"]) == 0
        model = featcache.load_model(path, allow_h5=True)
        assert np.array_equal(model.get_weights()[0], tiny_model.get_weights()[0])
        with pytest.raises(ModelRefused, match="There is no model file"):
            featcache.load_model(tmp_path / "absent.h5", allow_h5=True)

    def test_links_and_lambdas_in_it_are_refused_all_the_same(
        self, tiny_model: Any, tmp_path: Path
    ) -> None:
        import keras

        path = tmp_path / "linked.h5"
        tiny_model.save(path)
        with h5py.File(path, "r+") as file:
            file["more"] = h5py.ExternalLink("/etc/passwd", "/")
        with pytest.raises(ModelRefused, match="link to another object"):
            featcache.load_model(path, allow_h5=True)
        runs = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x)])
        runs.save(tmp_path / "lambda.h5")
        with pytest.raises(ModelRefused, match="Lambda"):
            featcache.load_model(tmp_path / "lambda.h5", allow_h5=True)


def with_layer(**record: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        layer = {"module": "keras.layers", "config": {}, "registered_name": None, **record}
        config["config"]["layers"].append(layer)
        return config

    return change


def linked(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as hdf:
        hdf["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    return file.getvalue()


def bomb(data: bytes) -> bytes:
    file = io.BytesIO(data)
    with h5py.File(file, "r+") as hdf:
        hdf.create_dataset("bomb", (2**40,), "<f4", chunks=(1024,))
    return file.getvalue()


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "lambda": ({"config": with_layer(class_name="Lambda")}, "Lambda"),
    "marshalled code": ({"config": with_layer(class_name="__lambda__")}, "__lambda__"),
    "another module": ({"config": with_layer(module="os", class_name="system")}, "os.system"),
    "a function": (
        {"config": with_layer(module="builtins", class_name="function", config="exec")},
        "builtins.function",
    ),
    "a downloader": (
        {"config": with_layer(module="keras.utils", class_name="get_file")}, "get_file",
    ),
    "a registered class": (
        {"config": with_layer(class_name="Dense", registered_name="evil>Dense")}, "Dense",
    ),
    "a reader of files": ({"config": with_layer(class_name="StringLookup")}, "StringLookup"),
    "a saved graph": ({"config": with_layer(class_name="TFSMLayer")}, "TFSMLayer"),
    "nested": (
        {"config": with_layer(class_name="Dense", config={"activation": {
            "module": "posix", "class_name": "popen"}})},
        "posix.popen",
    ),
    "no network": ({"config": lambda c: ["x"]}, "does not describe"),
    "linked weights": ({"weights": linked}, "link to another object"),
    "weights of terabytes": ({"weights": bomb}, "declares"),
    "no weights": ({"weights": lambda b: b"nothing"}, "HDF5 cannot open"),
    "a further file": ({"more": {"assets/vocabulary.txt": b"x"}}, "assets/vocabulary.txt"),
    "a path out of it": ({"more": {"../evil.py": b"x"}}, "evil.py"),
    "compressed": ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
}  # fmt: skip


class TestPoison:
    @pytest.mark.parametrize("kind", HOSTILE)
    def test_hostile_files_are_refused_before_keras_sees_them(
        self, saved: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        changes, named = HOSTILE[kind]
        path = rebuilt(saved, tmp_path / "hostile.keras", **changes)
        monkeypatch.setattr(
            "featcache.backbones.model_file.import_keras", lambda: pytest.fail("too late")
        )
        with pytest.raises(ModelRefused, match="is not loaded") as caught:
            featcache.load_model(path)
        assert named in str(caught.value)
        with pytest.raises(ModelRefused):
            featcache.extract(path)

    def test_the_unchanged_file_is_sound(self, saved: Path, tmp_path: Path) -> None:
        found = inspect_model_file(rebuilt(saved, tmp_path / "same.keras"))
        assert (found.name, found.input_size) == ("same", (16, 16))
        assert "Rescaling" in found.kinds

    def test_a_missing_file_and_what_keras_cannot_build_are_told(
        self, saved: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelRefused, match="There is no model file"):
            featcache.extract(tmp_path / "absent.keras")
        path = rebuilt(saved, tmp_path / "odd.keras", with_layer(class_name="NoSuchLayer"))
        with pytest.raises(ModelRefused, match="is not loaded"):
            featcache.load_model(path)

    @settings(
        deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_damage_ends_in_a_look_or_a_refusal(
        self, saved: Path, tmp_path: Path, data: st.DataObject
    ) -> None:
        content = bytearray(saved.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            del content[place:]
        else:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        path = tmp_path / "damaged.keras"
        path.write_bytes(content)
        try:
            found = inspect_model_file(path)
        except ModelRefused:
            return
        assert found.path == path


@pytest.mark.parametrize(
    ("name", "expected"), [("a.keras", True), (Path("B.H5"), True), ("vgg19", False), (3, False)]
)
def test_which_backbones_are_files(name: Any, expected: bool) -> None:
    assert is_model_file(name) is expected
