"""Model files made to do harm: each is refused before anything runs, opens or allocates."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import featcache
from faults.scale import times
from featcache._io.stored_zip import StoredMember
from featcache.errors import ModelRefused

KERAS_LAYERS = "keras.layers"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.keras"
    tiny_model.save(path)
    return path


def changed(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                config = json.loads(data)
                change(config)
                data = json.dumps(config).encode()
            new.writestr(name, data)
    return target


def layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    found = config["config"]["layers"]
    assert isinstance(found, list)
    return found


def switched(config: dict[str, Any]) -> None:
    """An operation whose argument is a record that stands for a class."""
    loader = {"module": KERAS_LAYERS, "class_name": "function", "config": "TFSMLayer"}
    layers(config)[-1].update(
        {
            "module": "keras.src.ops.core", "class_name": "Switch", "registered_name": "Switch",
            "inbound_nodes": [{"args": [0, [loader], "/etc"], "kwargs": {}}],
        }
    )  # fmt: skip


def in_an_argument(record: Any, key: str = "activation") -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        layers(config)[-1]["config"][key] = record

    return change


def with_size(layer: str, key: str, size: Any) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        target = next(one for one in layers(config) if one["class_name"] == layer)
        target["config"][key] = size

    return change


FUNCTION = {"class_name": "function", "registered_name": "function"}
HOSTILE = {
    "a switch of a class": switched,
    "a class as a function": in_an_argument(
        {**FUNCTION, "module": KERAS_LAYERS, "config": "TFSMLayer"}
    ),
    "a function of another module": in_an_argument(
        {**FUNCTION, "module": "keras.utils", "config": "get_file"}
    ),
    "a function registered under another name": in_an_argument(
        {
            "class_name": "function",
            "module": "builtins",
            "config": "relu",
            "registered_name": "exec",
        }
    ),
    "a builtin": in_an_argument({**FUNCTION, "module": "builtins", "config": "eval"}),
    "a class named by a text": in_an_argument("TFSMLayer"),
    "a class named by a text in an unknown argument": in_an_argument("Lambda", "more"),
    "a module without a class": in_an_argument({"module": "os", "config": {}}),
    "a type": in_an_argument(
        {"class_name": "__typespec__", "module": "os", "spec_name": "x", "config": []}
    ),
    "bytes": in_an_argument({"class_name": "__bytes__", "config": {"value": "x"}}),
    "a mark with more": in_an_argument(
        {"class_name": "__numpy__", "config": {"value": [1], "dtype": "int32", "class": 1}}
    ),
    "objects of one's own": in_an_argument({"relu": 1}, "custom_objects"),
    "code in a build": lambda c: layers(c)[-1].update(
        build_config={"class_name": "Lambda", "module": KERAS_LAYERS, "config": {}}
    ),
    "a key with a terminal escape": in_an_argument(1, "\x1b[2J"),
    "a huge number": in_an_argument(10**400),
    "a huge size": with_size("Conv2D", "filters", 2 * 10**7),
    "a huge stride": with_size("Conv2D", "strides", [2**20, 1]),
    "no class": lambda c: layers(c)[-1].update(class_name=["Dense"]),
    "deep nesting": in_an_argument(json.loads("[" * 500 + "]" * 500)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_before_keras_is_asked(
    kind: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(saved, tmp_path / "hostile.keras", HOSTILE[kind])
    monkeypatch.setattr(
        "featcache.backbones.model_file.import_keras", lambda: pytest.fail("too late")
    )
    with pytest.raises(ModelRefused, match="is not loaded") as caught:
        featcache.load_model(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_more_weights_than_the_file_holds_are_refused_before_they_are_made(
    saved: Path, tmp_path: Path
) -> None:
    path = changed(saved, tmp_path / "large.keras", with_size("Conv2D", "filters", 900_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelRefused, match="weights, but the file does not"):
        featcache.load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_a_layer_with_huge_outputs_is_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((64, 64, 3))
    outputs = keras.layers.UpSampling2D(2)(inputs)
    keras.Model(inputs, keras.layers.GlobalMaxPooling2D()(outputs)).save(tmp_path / "up.keras")
    path = changed(
        tmp_path / "up.keras", tmp_path / "big.keras", with_size("UpSampling2D", "size", [999, 999])
    )
    with pytest.raises(ModelRefused, match="values for an image"):
        featcache.load_model(path)


def test_the_file_that_was_checked_is_the_one_that_is_loaded(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.backbones import model_file

    hostile = changed(saved, tmp_path / "hostile.keras", switched).read_bytes()
    path = tmp_path / "swapped.keras"
    path.write_bytes(saved.read_bytes())
    real = model_file.import_keras

    def swap() -> Any:
        path.write_bytes(hostile)  # after the check, before Keras opens the name
        return real()

    monkeypatch.setattr(model_file, "import_keras", swap)
    assert featcache.load_model(path).count_params() > 0
    with pytest.raises(ModelRefused):
        featcache.load_model(path)


def test_a_member_is_read_as_it_is_without_reading_it_again(saved: Path) -> None:
    with saved.open("rb") as file, zipfile.ZipFile(file) as archive:
        member = archive.getinfo("model.weights.h5")
        expected, part = archive.read(member), StoredMember(file, member)
        assert part.read() == expected
        assert (part.seek(-9, io.SEEK_END), part.read()) == (len(expected) - 9, expected[-9:])
        assert (part.seek(5), part.read(3), part.read(2)) == (5, expected[5:8], expected[8:10])
        before = file.tell()
        part.seek(4)
        assert (part.read(4), file.tell()) == (expected[4:8], before - 2)
        part.seek(len(expected) + 9)
        assert part.read() == b""
        member.file_size = 2**40
        with pytest.raises(ValueError, match="ends after the archive"):
            StoredMember(file, member)


# Mutates configurations, loads what the check lets through, and watches what Python does.
FUZZ = r"""
import ctypes, json, os, random, sys, warnings
warnings.simplefilter("ignore")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, keras.src.saving.object_registration
from keras.src.saving import serialization_lib
from featcache.backbones.model_config import check_network
from featcache.backbones.model_file import limited_weights

bases, count, seed = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
bases = [json.load(open(path)) for path in bases]
rng = random.Random(seed)

def exported():
    found = {("os", "system"), ("builtins", "exec"), ("subprocess", "run"), ("posix", "popen")}
    for name, module in list(sys.modules.items()):
        if name.startswith("keras") and module is not None:
            for kind, value in list(vars(module).items()):
                if callable(value) and not kind.startswith("_"):
                    found.add((name, kind))
    return sorted(found)

NAMES = exported()
CANARY = os.path.abspath("canary")
NUMBERS = [0, -1, 2**31, 2**40, 1e308, float("nan"), True, None, 10**6, 7]

def spots(value, found):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, member in list(items):
        found.append((value, key))
        if isinstance(member, (dict, list)):
            spots(member, found)
    return found

def payload():
    module, name = rng.choice(NAMES)
    text = rng.choice([CANARY, "file://" + CANARY, name, "relu"])
    inner = rng.choice([{}, {"filepath": text}, {"function": text}, {"fn": name}, text, [text],
                        {"vocabulary": text}, {"units": 2**40}, name])
    return rng.choice([
        {"module": module, "class_name": name, "config": inner, "registered_name": None},
        {"module": module, "class_name": name, "config": inner, "registered_name": name},
        {"module": module, "class_name": "function", "config": name, "registered_name": name},
        {"module": "builtins", "class_name": "function", "config": name,
         "registered_name": "function"},
        {"class_name": name, "config": inner},
        {"class_name": "__lambda__", "config": {"value": text}},
        name, text, [name], {name: text}, rng.choice(NUMBERS),
    ])

def mutate(config):
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        holder, key = rng.choice(spots(config, []))
        kind = rng.random()
        if kind < 0.5:
            holder[key] = payload()
        elif kind < 0.7 and isinstance(holder, dict):
            module, name = rng.choice(NAMES)
            holder.update(rng.choice([{"module": module}, {"class_name": name},
                {"module": module, "class_name": name}, {"registered_name": name}, {key: name}]))
        elif kind < 0.8 and isinstance(holder, dict):
            holder[rng.choice(["fn", "function", "layer", "activation", "compile_config",
                "build_config", "call", "spec_name", "custom_objects"])] = payload()
        elif kind < 0.9:
            holder[key] = rng.choice(NUMBERS)
        else:
            other, place = rng.choice(spots(rng.choice(bases), []))
            holder[key] = json.loads(json.dumps(other[place]))
    return config

for base in bases:  # what Keras loads lazily is loaded by now
    check_network(base)
    serialization_lib.deserialize_keras_object(json.loads(json.dumps(base)), safe_mode=True)

seen, watching = [], [False]
EVENTS = {"open", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
    "os.listdir", "os.scandir", "socket.__new__", "ctypes.dlopen", "os.remove", "os.rename",
    "os.mkdir", "pickle.find_class", "shutil.copyfile", "tempfile.mkstemp", "tempfile.mkdtemp"}
def canary(event, arguments):
    if watching[0] and event in EVENTS:
        where = str(arguments[0]) if arguments else ""
        # Python's own modules, which TensorFlow loads when it first needs them.
        if not where.endswith((".py", ".pyc", ".so")) or "canary" in where:
            seen.append(f"{event} {where[:200]}")
sys.addaudithook(canary)

# TensorFlow opens files from C++, where Python's hook sees nothing; Linux tells of those.
open(CANARY, "w").write("x")
libc = ctypes.CDLL(None)
notices = libc.inotify_init1(os.O_NONBLOCK)
OPENED = 0x20
assert notices >= 0 and libc.inotify_add_watch(notices, CANARY.encode(), OPENED) >= 0
def noticed():
    try:
        os.read(notices, 65536)
    except BlockingIOError:
        return
    seen.append("the canary's file was opened")

# A class that reads a file, let past the check: the canary must be able to see it.
try:
    serialization_lib.deserialize_keras_object({"module": "keras.layers", "class_name":
        "StringLookup", "registered_name": None, "config": {"vocabulary": CANARY}}, safe_mode=False)
except Exception:
    pass
noticed()
assert len(seen) == 1, "the canary sees no file that is opened"
watching[0] = True
os.listdir(".")
watching[0] = False
assert len(seen) == 2, "the canary sees nothing that Python does"
seen.clear()

accepted = built = 0
for number in range(count):
    config = mutate(json.loads(json.dumps(rng.choice(bases))))
    try:
        check_network(config)
    except ValueError:
        continue
    accepted += 1
    watching[0] = True
    try:
        with limited_weights(keras, 5_000_000):
            config = {**config, "compile_config": None}
            serialization_lib.deserialize_keras_object(config, safe_mode=True)
        built += 1
    except Exception:
        pass
    watching[0] = False
    noticed()
    if seen:
        print(json.dumps(config)[:5000], "did", seen[:5])
        sys.exit(1)
print(json.dumps({"accepted": accepted, "built": built}))
"""


def bases(folder: Path) -> list[str]:
    """Write configurations with many kinds of layers, operations and nesting."""
    import keras

    inner = keras.Sequential([keras.Input((8, 8, 4)), keras.layers.SeparableConv2D(4, 3)])
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = inner(keras.ops.relu(x) * 2 + 1)
    x = keras.layers.PReLU()(keras.layers.Add()([x, x]))
    x = keras.layers.Reshape((-1, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.LayerNormalization()(x)[:, 1:]
    x = keras.layers.Bidirectional(keras.layers.LSTM(3))(x)
    x = keras.layers.Dense(4, kernel_regularizer="l2", kernel_constraint="max_norm")(x)
    wide = keras.Model(inputs, keras.layers.Softmax()(x))
    plain = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255),
         keras.layers.Flatten(), keras.layers.Dense(3, "gelu")]
    )  # fmt: skip
    paths = []
    for number, model in enumerate([wide, plain]):
        path = folder / f"{number}.json"
        path.write_text(json.dumps(keras.saving.serialize_keras_object(model)))
        paths.append(str(path))
    return paths


@pytest.mark.timeout(3600)
def test_no_mutated_configuration_opens_starts_or_connects_to_anything(tmp_path: Path) -> None:
    count = times(1500, 20_000)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, json.dumps(bases(tmp_path)), str(count), "7"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:] + done.stdout[-1000:]
    result = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{count} configurations: {result}")
    assert result["built"] > 0  # the loader was really asked
    assert result["accepted"] < count / 2
