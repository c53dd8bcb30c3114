"""Several devices give the rows of one, and lose none of them if one fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_micro_batch import Runner

import featcache
import onnx_files
from conftest import make_tiny_model, photo
from featcache.backbones.keras_backend import list_devices
from featcache.backbones.model import Backbone
from featcache.backbones.request import BackboneOptions, make_request
from featcache.cli import main
from featcache.engines import devices as devices_module
from featcache.engines.devices import cores_of, keras_devices, parse_devices, pinned_to
from featcache.engines.engine import Engine
from featcache.engines.group import EngineGroup
from featcache.engines.keras import KerasRunner, keras_runners
from featcache.engines.micro_batch import MicroBatchSize
from featcache.engines.onnxruntime import OnnxRuntimeRunner
from featcache.engines.openvino import OpenVINORunner
from featcache.errors import DeviceError, EngineUnavailable, InvalidRequest, OutOfMemory
from featcache.extraction.pipeline import default_workers

pytest.importorskip("openvino", reason="the extra featcache[openvino] is not installed")
two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="this process has one core",
)


def engine_of(run: Any, parallel: int = 1, batch_size: int = 4) -> Engine:
    runner = Runner(999, MemoryError())
    runner.run, runner.parallel = run, parallel  # type: ignore[method-assign]
    return Engine(runner, MicroBatchSize(batch_size), batch_size)


def backbone_of(model: Any, rule: Any = "unit") -> Backbone:
    request: Any = make_request(model, BackboneOptions(preprocessing=rule))
    return Backbone(request)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model, and a cache with its conversion for OpenVINO."""
    model, folder = make_tiny_model(7), tmp_path_factory.mktemp("converted")
    photo(folder / "photos" / "one.png", 1)
    featcache.extract(model, folder / "photos", engine="openvino", cache_dir=folder / "cache")
    shutil.rmtree(folder / "cache" / "stores")
    return model, folder / "cache"


@pytest.mark.parametrize(
    "devices",
    [0, -1, True, 1.5, "", "all", "gpu", "gpu:01", "cpu:x", [], ["gpu:0", "gpu:0"], ["gpu:0", 1],
     {"gpu:0"}],
)  # fmt: skip
def test_what_names_no_devices_is_refused_before_anything_is_read(devices: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"devices=.* is not known; give 'auto' for all GPUs"):
        featcache.extract("pocket", "nowhere", devices=devices)


def test_keras_devices_are_those_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"gpu": ["gpu:0", "gpu:1", "gpu:2"], "cpu": ["cpu:0"]}
    monkeypatch.setattr(devices_module, "list_devices", lambda _, kind: found[kind])

    def asked(devices: Any) -> list[str]:
        request = parse_devices(devices)
        assert request is not None
        return keras_devices(request)

    assert asked("auto") == ["gpu:0", "gpu:1", "gpu:2"]
    assert asked(2) == ["gpu:0", "gpu:1"]
    assert asked(["gpu:2", "cpu:0"]) == ["gpu:2", "cpu:0"]
    with pytest.raises(InvalidRequest, match="asks for 4 GPUs, and Keras finds 3"):
        asked(4)
    with pytest.raises(InvalidRequest, match="names gpu:3, and Keras has gpu:0, gpu:1, gpu:2, cpu"):
        asked(["gpu:1", "gpu:3"])
    found.update(gpu=[], cpu=[])  # as with PyTorch
    assert asked("gpu:3") == ["gpu:3"]
    assert asked("auto") == []


def test_a_backend_that_lists_no_devices_has_none() -> None:
    def refuse(kind: str) -> list[str]:
        raise NotImplementedError(kind)

    keras: Any = SimpleNamespace(distribution=SimpleNamespace(list_devices=refuse))
    assert list_devices(keras, "gpu") == []


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "usable_cores", lambda: [3, 5])
    assert cores_of(parse_devices(["cpu:1", "cpu:0"])) == [5, 3]
    assert cores_of(parse_devices("cpu:0")) == [3]
    assert cores_of(parse_devices("auto")) == cores_of(None) == [None]
    with pytest.raises(InvalidRequest, match="names cpu:2, and this process may use 2 cores"):
        cores_of(parse_devices(["cpu:0", "cpu:2"]))


def test_other_systems_have_cores_and_no_pinning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert devices_module.usable_cores() == [0, 1, 2]
    with pinned_to(1):
        pass


def test_decoding_threads_are_per_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(20)), raising=False)
    assert [default_workers(n) for n in (1, 2, 3)] == [8, 16, 20]


@two_cores
def test_two_cores_give_the_rows_and_the_order_of_one_engine(
    converted: tuple[Any, Path], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = converted
    for i in range(40):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    (photos / "owl" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbad")
    cores: list[tuple[int | None, set[int]]] = []
    run = OpenVINORunner._run

    def noted(self: OpenVINORunner, pixels: Any, size: int) -> Any:
        rows = run(self, pixels, size)
        cores.append((self._core, os.sched_getaffinity(0)))
        return rows

    monkeypatch.setattr(OpenVINORunner, "_run", noted)
    found = []
    usable = os.sched_getaffinity(0)
    for devices in (None, "cpu:1", ["cpu:0", "cpu:1"]):
        features = featcache.extract(
            model, photos, engine="openvino", batch_size=4, cache_dir=cache, devices=devices
        )
        found.append((features, np.array(features.X)))
        shutil.rmtree(cache / "stores")
    first, second = sorted(usable)[:2]
    on_cores = [(core, used) for core, used in cores if core is not None]
    assert {core for core, _ in on_cores} == {first, second}
    assert all(used == {core} for core, used in on_cores)
    assert os.sched_getaffinity(0) == usable
    (all_cores, expected), (one, of_one), (two, of_two) = found
    np.testing.assert_array_equal(of_two, of_one)
    np.testing.assert_allclose(of_two, expected, atol=1e-4)
    assert two.ids == one.ids == all_cores.ids
    assert two.y.tolist() == all_cores.y.tolist()
    assert [q.path for q in two.quarantined] == [q.path for q in all_cores.quarantined]
    assert (two.summary.engine, two.summary.computed) == ("openvino", 52)


@two_cores
def test_on_one_core_openvino_has_no_threads_of_its_own(converted: tuple[Any, Path]) -> None:
    """It would keep them for the next model, on whichever core that is to run."""
    _, cache = converted
    (folder,) = (path for path in (cache / "engines").iterdir() if path.is_dir())
    before = {*os.listdir("/proc/self/task")}
    runner = OpenVINORunner(folder, (16, 16), "none", "float32", 2, core=0)
    runner.run(np.zeros((4, 16, 16, 3), np.uint8), 2)
    assert {*os.listdir("/proc/self/task")} <= before


def test_cores_are_given_to_onnx_runtime_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_files.write(tmp_path / "net.onnx", onnx_files.cnn())
    options: dict[str, Any] = {
        "image_size": 16, "preprocessing": "unit", "engine": "onnxruntime", "batch_size": 4,
    }  # fmt: skip
    cores: list[set[int]] = []
    run = OnnxRuntimeRunner.run

    def noted(self: OnnxRuntimeRunner, pixels: Any, size: int) -> Any:
        with self._place():
            cores.append(os.sched_getaffinity(0))
        return run(self, pixels, size)

    monkeypatch.setattr(OnnxRuntimeRunner, "run", noted)
    one = featcache.extract(path, photos, cache_dir=tmp_path / "a", **options)
    core = devices_module.usable_cores()[0]
    assert {core} not in cores or len(devices_module.usable_cores()) == 1
    cores.clear()
    two = featcache.extract(path, photos, cache_dir=tmp_path / "b", devices="cpu:0", **options)
    np.testing.assert_allclose(two.X, one.X, atol=1e-4)
    assert cores == [{core}] * 3
    with pytest.raises(EngineUnavailable, match=r"is an ONNX network, which runs on the processor"):
        featcache.extract(path, photos, cache_dir=tmp_path / "c", devices=2, **options)


def test_openvino_is_not_used_where_a_gpu_was_asked_for(
    converted: tuple[Any, Path], photos: Path
) -> None:
    model, cache = converted
    with pytest.raises(InvalidRequest, match="asks for 2 GPUs, and Keras finds 0"):
        featcache.extract(model, photos, devices=2, cache_dir=cache)
    with pytest.raises(EngineUnavailable, match="runs on the processor, and devices= asks for a"):
        featcache.extract(model, photos, devices=2, engine="openvino", cache_dir=cache)


def test_batches_go_to_both_devices_at_once() -> None:
    together = threading.Barrier(2, timeout=10)
    used: list[str] = []

    def on(name: str) -> Any:
        def run(pixels: Any, size: int) -> Any:
            used.append(name)
            together.wait()  # times out unless the other device computes too
            return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

        return run

    engines = [engine_of(on("a")), engine_of(on("b"))]
    group = EngineGroup(engines, ["gpu:0", "gpu:1"])
    assert (group.parallel, group.devices, group.width, group.name) == (2, 2, 1, "keras")
    assert (group.batch_size, group.commits_each_batch, group.provenance()) == (4, True, {})
    pixels = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1)
    threads = [threading.Thread(target=group.embed, args=(pixels,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(used) == ["a", "b"]


def test_a_gpu_gets_its_next_batch_while_it_computes_one() -> None:
    """Batch k + 1 is submitted before the result of batch k is fetched."""
    second, seen = threading.Event(), []

    def run(pixels: Any, size: int) -> Any:
        seen.append(int(pixels[0, 0, 0, 0]))
        if len(seen) > 1:
            second.set()
        assert second.wait(10)
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    group = EngineGroup([engine_of(run, parallel=2), engine_of(run)], ["gpu:0", "cpu:0"])
    assert group.parallel == 3
    assert [group._free.get() for _ in range(3)] == [0, 1, 0]
    engine = engine_of(run, parallel=2)
    pixels = np.arange(2, dtype=np.uint8).reshape(2, 1, 1, 1, 1)
    threads = [threading.Thread(target=engine.embed, args=(one,)) for one in pixels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [0, 1]


def test_the_error_names_the_device() -> None:
    def fail(error: Exception) -> Any:
        def run(pixels: Any, size: int) -> Any:
            raise error

        return run

    pixels = np.zeros((1, 1, 1, 1), np.uint8)
    with pytest.raises(DeviceError, match="The device gpu:3 cannot go on: ValueError: ECC") as one:
        EngineGroup([engine_of(fail(ValueError("ECC")))], ["gpu:3"]).embed(pixels)
    assert one.value.device == "gpu:3"
    group = EngineGroup([engine_of(fail(MemoryError()), batch_size=1)], ["gpu:2"])
    for _ in range(2):  # it is free again afterwards
        with pytest.raises(OutOfMemory, match="The device gpu:2: The backbone does not fit"):
            group.embed(pixels)


def test_a_size_is_halved_once_for_batches_that_fail_together() -> None:
    sizes = MicroBatchSize(8)
    assert [sizes.halve(8), sizes.current] == [True, 4]
    assert [sizes.halve(8), sizes.current] == [True, 4]
    assert [sizes.halve(1), sizes.current] == [False, 4]


@two_cores
@pytest.mark.parametrize("stop", [RuntimeError("broken"), KeyboardInterrupt()])
def test_if_one_device_fails_the_rows_of_the_others_stay(
    converted: tuple[Any, Path], photos: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    model, cache = converted
    for i in range(88):
        photo(photos / "owl" / f"{i}.png", 300 + i)
    run, passes = OpenVINORunner.run, []

    def stopped(self: OpenVINORunner, pixels: Any, size: int) -> Any:
        passes.append(self._core)
        if len(passes) > 4 and self._core == devices_module.usable_cores()[1]:
            if isinstance(stop, RuntimeError):
                raise stop
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)
        return run(self, pixels, size)

    options: dict[str, Any] = {"engine": "openvino", "batch_size": 2, "cache_dir": cache}
    with monkeypatch.context() as patch:
        patch.setattr(OpenVINORunner, "run", stopped)
        expected = DeviceError if isinstance(stop, RuntimeError) else KeyboardInterrupt
        with pytest.raises(expected):
            featcache.extract(model, photos, devices=["cpu:0", "cpu:1"], **options)
    assert 4 < len(passes) < 25
    features = featcache.extract(model, photos, **options)
    assert 6 <= features.summary.stored < 60
    assert features.summary.stored + features.summary.computed == 100
    assert featcache.verify(features.summary.folder) == []
    shutil.rmtree(cache / "stores")


def test_pixels_go_to_the_model_as_uint8_and_are_scaled_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    model = make_tiny_model()
    for rule in ("none", "tf", "caffe", "torch", lambda x: x / 255):
        backbone = backbone_of(model, rule)
        runnable, given = backbone._model_for("float32"), []
        predict = runnable.predict_on_batch

        def noted(x: Any, predict: Any = predict, given: list[Any] = given) -> Any:
            given.append(x)
            return predict(x)

        monkeypatch.setattr(runnable, "predict_on_batch", noted)
        found = backbone.embed(pixels)
        assert given[0].dtype == (np.float32 if callable(rule) else np.uint8)
        np.testing.assert_allclose(found, backbone.embed_untraced(pixels), rtol=1e-5, atol=1e-5)


def test_a_copy_on_another_device_gives_the_same_rows(tiny_model: Any) -> None:
    backbone = backbone_of(tiny_model)
    (default,) = keras_runners(backbone, [], (16, 16))
    assert default.parallel == 1
    copied = backbone.copied_to("cpu:0")
    assert copied.model is not backbone.model
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    (placed,) = keras_runners(backbone, ["cpu:0"], (16, 16))
    np.testing.assert_array_equal(placed.run(pixels, 2), default.run(pixels, 2))
    np.testing.assert_array_equal(copied.embed(pixels), backbone.embed(pixels))
    copied.on_accelerator = True
    assert KerasRunner(copied, "gpu:1").parallel == 2
    copied.backend = "jax"
    assert KerasRunner(copied, "gpu:1").parallel == 1


def test_a_copy_that_cannot_be_made_or_differs_is_refused(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr("featcache.backbones.on_device._clone", lambda _: 1 / 0)
        with pytest.raises(InvalidRequest, match=r"built on gpu:1 .*leave devices="):
            keras_runners(backbone, ["gpu:1"], (16, 16))
    other = backbone_of(make_tiny_model(5))
    monkeypatch.setattr(Backbone, "copied_to", lambda *_: other)
    with pytest.raises(InvalidRequest, match="on cpu:1 gives other rows than the model"):
        keras_runners(backbone, ["cpu:0", "cpu:1"], (16, 16))


def test_devices_and_a_cluster_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="chooses devices of this machine, and with client="):
        featcache.extract("pocket", "nowhere", client=object(), devices="auto")


def test_the_option_of_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Any] = []

    def extracted(*_: Any, **options: Any) -> Any:
        taken.append(options["devices"])
        raise InvalidRequest("enough", received=None)

    monkeypatch.setattr("featcache.cli.extraction.extracted", extracted)
    for text in ("auto", "2", "gpu:1", "cpu:0,cpu:1"):
        assert main(["extract", "pocket", "--devices", text]) == 2
    assert main(["extract", "pocket"]) == 2
    assert taken == ["auto", 2, "gpu:1", ["cpu:0", "cpu:1"], None]
    assert main(["extract", "pocket", "--devices", "gpu"]) == 2
    assert "devices='gpu' is not known" in capsys.readouterr().err


TWO_LOGICAL_DEVICES = """
import sys, numpy as np, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import featcache
from featcache.engines.keras import KerasRunner
used, run = set(), KerasRunner.run
def noted(self, pixels, size):
    weight = self._backbone.model.weights[0].value.device
    with self._place():
        rows = self._backbone._model_for("float32")(pixels)
    used.add((self._device, weight[-5:], rows.device[-5:]))
    return run(self, pixels, size)
KerasRunner.run = noted
one = featcache.extract("pocket", sys.argv[1], engine="keras", batch_size=4, cache_dir=sys.argv[2])
used.clear()
two = featcache.extract("pocket", sys.argv[1], engine="keras", batch_size=4, cache_dir=sys.argv[3],
                        devices=["cpu:1", "cpu:0"])
assert used >= {("cpu:0", "CPU:0", "CPU:0"), ("cpu:1", "CPU:1", "CPU:1")}, used
assert used <= {(None, "CPU:0", "CPU:0"), ("cpu:0", "CPU:0", "CPU:0"), ("cpu:1", "CPU:1", "CPU:1")}
np.testing.assert_array_equal(one.X, two.X)
assert one.ids == two.ids and one.summary.computed == two.summary.computed == 12
"""


@pytest.mark.slow
def test_two_devices_of_tensorflow_give_the_rows_of_one(photos: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", TWO_LOGICAL_DEVICES, photos, tmp_path / "a", tmp_path / "b"],
        check=True,
    )
