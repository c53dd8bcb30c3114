"""ONNX files that anybody may have made: refused with a reason, and nothing else is opened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import photo
from featcache import load_backbone, load_model
from featcache.backbones.onnx import backbone as onnx_backbone
from featcache.backbones.onnx import file as onnx_file
from featcache.backbones.onnx import session, wire
from featcache.errors import FeatcacheError, InvalidRequest, ModelRefused
from onnx_files import SIDE, cnn, made, write

node = helper.make_node


def load(path: Path, **options: Any) -> Any:
    options = {"preprocessing": "unit", "cache_dir": path.parent / "cache", **options}
    return load_backbone(path, **options)


def integers(name: str, *values: int) -> Any:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def ending(*nodes: Any, opset: int = 17, initializers: Any = ()) -> Any:
    """The small network, and nodes that make "end" of its features."""
    model = cnn(opset=opset)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(initializers)
    model.graph.output[0].name = "end"
    return model


def external(model: Any, location: str, *, declared: bool = True) -> Any:
    tensor = model.graph.initializer[0]
    tensor.external_data.add(key="location", value=location)
    if declared:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
    return model


def with_function() -> Any:
    model = cnn()
    body = [node("Neg", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("", "Relu", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    )
    return model


def branching() -> Any:
    branch = helper.make_graph([], "branch", [], [])
    return ending(node("If", ["condition"], ["end"], then_branch=branch, else_branch=branch))


def with_attribute(**fields: Any) -> Any:
    model = cnn()
    attribute = model.graph.node[0].attribute[0]
    for name, value in fields.items():
        setattr(attribute, name, value)
    return model


def with_strides(*values: int) -> Any:
    model = cnn()
    model.graph.node[0].attribute[0].ints[:] = values
    return model


def with_dims(*dims: int) -> Any:
    model = cnn()
    model.graph.initializer[0].dims[:] = dims
    return model


def text_constant() -> Any:
    return ending(
        node("Constant", [], ["words"], value_strings=["a", "b"]),
        node("Concat", ["features", "words"], ["end"], axis=1),
    )


def constant_elsewhere() -> Any:
    value = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[6])
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/passwd")
    return ending(node("Constant", [], ["c"], value=value), node("Add", ["features", "c"], ["end"]))


def repeated(name: str) -> Any:
    model = cnn()
    model.graph.initializer.append(model.graph.initializer[0])
    model.graph.initializer[-1].name = name
    return model


def with_opset(*versions: tuple[str, int]) -> Any:
    model = cnn()
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*version) for version in versions)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "weights elsewhere": (lambda: external(cnn(), "w.bin"), "in another file.*external_data=False"),
    "weights above": (lambda: external(cnn(), "../../w.bin"), "in another file"),
    "weights of the machine": (lambda: external(cnn(), "/etc/passwd"), "in another file"),
    "hidden location": (lambda: external(cnn(), "w", declared=False), "in another file"),
    "constant elsewhere": (constant_elsewhere, "in another file"),
    "another domain": (
        lambda: ending(node("Gelu", ["features"], ["end"], domain="com.microsoft")),
        "operator 'Gelu' of the domain 'com.microsoft' is not one of ONNX' own",
    ),
    "unknown operator": (lambda: ending(node("Magic", ["features"], ["end"])), "operator Magic is"),
    "later operator": (
        lambda: ending(node("Gelu", ["features"], ["end"])), "version 17 of ONNX has no operator",
    ),
    "removed operator": (
        lambda: ending(
            node("Upsample", ["features", "s"], ["end"]),
            initializers=[numpy_helper.from_array(np.ones(2, np.float32), "s")],
        ),
        "Upsample is not part of version 17",
    ),
    "control flow": (branching, "operator If is not accepted: it runs a graph of its own"),
    "a decoder": (lambda: ending(node("ImageDecoder", ["x"], ["end"])), "ImageDecoder is not"),
    "a function": (with_function, "functions of its own"),
    "training": (
        lambda: ending(
            node("Constant", [], ["yes"], value=helper.make_tensor("", TensorProto.BOOL, [], [1])),
            node("Dropout", ["features", "", "yes"], ["end"]),
        ),
        "Dropout may be in training mode",
    ),
    "a graph as attribute": (
        lambda: with_attribute(type=onnx.AttributeProto.GRAPH), "attribute 'strides'",
    ),
    "a reference": (lambda: with_attribute(ref_attr_name="x"), "attribute 'strides'"),
    "an enormous stride": (lambda: with_strides(2**40), "'strides' .* is 1,099,511,627,776"),
    "too few values": (lambda: with_dims(6, 3, 3, 4), "do not have the declared shape"),
    "negative shape": (lambda: with_dims(-6, -3, 3, 3), "do not have the declared shape"),
    "enormous shape": (lambda: with_dims(2**62, 4), "do not have the declared shape"),
    "text": (text_constant, "value_strings, which is not a number"),
    "two weights": (lambda: repeated("kernel"), "have one name"),
    "weight and tensor": (lambda: repeated("relu"), "have one name"),
    "two nodes": (lambda: ending(node("Neg", ["relu"], ["conv"])), "two nodes give .* 'conv'"),
    "a node for the input": (lambda: ending(node("Neg", ["relu"], ["images"])), "is an input"),
    "a cycle": (
        lambda: ending(
            node("Add", ["features", "b"], ["a"]), node("Neg", ["a"], ["b"]),
            node("Neg", ["a"], ["end"]),
        ),
        "cycle",
    ),
    "a cycle of nothing": (
        lambda: ending(
            node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"]),
            node("Add", ["features", "a"], ["end"]),
        ),
        "cycle",
    ),
    "nothing": (lambda: ending(node("Add", ["features", "zz"], ["end"])), "nothing gives .* 'zz'"),
    "no version": (with_opset, "does not say which version"),
    "two versions": (lambda: with_opset(("", 17), ("ai.onnx", 18)), "does not say which version"),
    "a version to come": (lambda: with_opset(("", 10**6)), "version 1000000"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_networks_that_could_do_harm_or_are_malformed_are_refused(
    tmp_path: Path, case: str
) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(ModelRefused, match=reason) as caught:
        load(write(tmp_path / "net.onnx", make()))
    assert caught.value.path == tmp_path / "net.onnx"
    assert str(caught.value).startswith("The ONNX network ")


def test_what_follows_the_layer_is_not_looked_at(tmp_path: Path) -> None:
    model = ending(node("NonMaxSuppression", ["features"], ["end"]))
    assert load(write(tmp_path / "net.onnx", model), layer="features").width == 6


def test_no_file_that_a_network_names_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = os.open

    def note(path: Any, *arguments: Any, **options: Any) -> int:
        opened.append(str(path))
        return real(path, *arguments, **options)

    file = write(tmp_path / "net.onnx", external(cnn(), "secret.bin"))
    (tmp_path / "secret.bin").write_bytes(bytes(648))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "open", note)
    with pytest.raises(ModelRefused):
        load(file)
    assert [name for name in opened if "secret" in name] == []
    assert str(file) in opened


ARRAYS = {
    "constant": ([node("ConstantOfShape", ["n"], ["big"])], [integers("n", 2**38)]),
    "tiles": ([node("Tile", ["features", "n"], ["big"])], [integers("n", 1, 2**38)]),
    "range": (
        [node("Range", ["zero", "n", "one"], ["r"]), node("Cast", ["r"], ["big"], to=1)],
        [numpy_helper.from_array(np.array(v, np.int64), k)
         for k, v in {"zero": 0, "n": 2**38, "one": 1}.items()],
    ),
    "padding": (
        [node("Pad", ["features", "n"], ["big"])], [integers("n", 0, 2**38, 0, 0)],
    ),
    "doubled": (
        [node("Concat", [f"d{i}" if i else "relu"] * 2, [f"d{i + 1}"], axis=3) for i in range(60)]
        + [node("Neg", ["d60"], ["big"])],
        [],
    ),
}  # fmt: skip


# The last takes half a minute, in which it fills the memory that it may take.
@pytest.mark.parametrize(
    "case", [*list(ARRAYS)[:-1], pytest.param("doubled", marks=pytest.mark.slow)]
)
def test_arrays_of_terabytes_are_refused_before_they_are_made(tmp_path: Path, case: str) -> None:
    nodes, initializers = ARRAYS[case]
    end = [
        node("ReduceSum", ["big"], ["sum"], keepdims=0),
        node("Add", ["features", "sum"], ["end"]),
    ]
    file = write(tmp_path / "net.onnx", ending(*nodes, *end, initializers=initializers))
    with pytest.raises(InvalidRequest, match=r"cannot take images of 16 x 16 pixels"):
        load(file)


def test_a_trial_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_MAX_SECONDS", 0.2)
    nodes = [node("ConstantOfShape", ["n"], ["m0"])]
    nodes += [node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(2000)]
    nodes += [
        node("ReduceSum", ["m2000"], ["s"], keepdims=0),
        node("Add", ["features", "s"], ["end"]),
    ]
    model = ending(*nodes, initializers=[integers("n", 600, 600)])
    started = time.perf_counter()
    with pytest.raises(InvalidRequest, match=r"[Tt]erminate"):
        load(write(tmp_path / "net.onnx", model))
    assert time.perf_counter() - started < 20


@pytest.mark.parametrize("side", [10**9, 2**62, 5000])
def test_images_of_an_enormous_size_are_refused(tmp_path: Path, side: int) -> None:
    with pytest.raises(InvalidRequest, match=r"takes images of"):
        load(write(tmp_path / "net.onnx", cnn(side=side)))


SHAPES = [
    ["n", 3], ["n", 1, SIDE, SIDE], ["n", "c", SIDE, SIDE], ["n", 3, 3, 3], [8, 3, SIDE, SIDE],
    ["n", 3, SIDE, SIDE, 1], [],
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_that_are_no_batch_of_images_are_refused(tmp_path: Path, shape: Any) -> None:
    model = made([node("Relu", ["images"], ["end"])], [], shape, ["end"])
    with pytest.raises(InvalidRequest, match=r"takes arrays|only batches of 8"):
        load(write(tmp_path / "net.onnx", model))


def test_a_second_input_is_refused_if_the_layer_needs_it(tmp_path: Path) -> None:
    model = ending(node("Add", ["features", "words"], ["end"]))
    model.graph.input.append(helper.make_tensor_value_info("words", TensorProto.FLOAT, ["n", 6]))
    file = write(tmp_path / "net.onnx", model)
    with pytest.raises(InvalidRequest, match=r"takes 2 inputs \(images, words\)"):
        load(file)
    assert load(file, layer="features").width == 6


def test_layers_that_are_no_features_are_refused(tmp_path: Path) -> None:
    ends = {
        "do not depend": node("ConstantOfShape", ["n"], ["end"]),
        "one row per image": node("ReduceSum", ["features"], ["end"], keepdims=0),
        "type int64": node("ArgMax", ["relu"], ["end"], axis=1, keepdims=0),
        "gives no values": node("Slice", ["features", "none", "none", "one"], ["end"]),
    }
    for reason, last in ends.items():
        found = [integers("n", 4, 4), integers("none", 0), integers("one", 1)]
        model = ending(last, initializers=found)
        with pytest.raises(InvalidRequest, match=reason.replace("do not depend", "not depend")):
            load(write(tmp_path / "net.onnx", model))


def test_a_network_that_gives_other_rows_for_more_images_is_noticed(tmp_path: Path) -> None:
    """One that gives a row per image for up to three images, which are what is tried."""
    nodes = [
        node("Shape", ["features"], ["shape"], end=1),
        node("Min", ["shape", "three"], ["few"]),
        node("Slice", ["features", "zero", "few", "zero"], ["end"]),
    ]
    model = ending(*nodes, initializers=[integers("three", 3), integers("zero", 0)])
    backbone = load(write(tmp_path / "net.onnx", model)).backbone
    assert backbone.embed(np.zeros((3, SIDE, SIDE, 3), np.uint8)).shape == (3, 6)
    with pytest.raises(InvalidRequest, match=r"\(3, 6\) for 4 images"):
        backbone.embed(np.zeros((4, SIDE, SIDE, 3), np.uint8))


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def _noise(file: Path) -> None:
    file.write_bytes(np.random.default_rng(0).bytes(5000))


def _picture(file: Path) -> None:
    photo(file.with_suffix(".png"), 0).rename(file)


def _deep(file: Path) -> None:
    """A thousand graphs, each in an attribute of a node of the other."""
    inner = b""
    for _ in range(1000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # graph of an attribute, of a node, of a graph
            inner = tag + _varint(len(inner)) + inner
    file.write_bytes(b"\x3a" + _varint(len(inner)) + inner)


def _not_text(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"strides", b"strid\xf2s"))


def _not_text_either(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"kernel", b"k\xf2rnel"))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _nodes(file: Path) -> None:
    body = b"\x0a\x00" * (wire.MAX_NODES + 1)
    file.write_bytes(b"\x3a" + _varint(len(body)) + body)


def _weights(file: Path) -> None:
    body = b"\x2a\x00" * (wire.MAX_WEIGHTS + 1)
    file.write_bytes(b"\x3a" + _varint(len(body)) + body)


@pytest.mark.parametrize(
    "damage", [_truncated, _noise, _picture, _deep, _nodes, _weights, _not_text, _not_text_either]
)
def test_files_that_are_no_networks_are_refused(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    damage(file)
    with pytest.raises(ModelRefused):
        load(file)


def test_a_description_that_takes_too_much_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    monkeypatch.setattr(wire, "MAX_DESCRIPTION_BYTES", 100)
    with pytest.raises(ModelRefused, match="without its weights; the limit is 100"):
        load(file)
    monkeypatch.undo()
    monkeypatch.setattr(wire, "_MAX_FIELDS", 20)
    with pytest.raises(ModelRefused, match="too many parts"):
        load(file)


def test_names_that_are_no_regular_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "empty.onnx").touch()
    with open(tmp_path / "large.onnx", "wb") as sparse:
        sparse.truncate(2**31)
    for name in ("pipe", "folder", "empty", "large", "missing"):
        with pytest.raises(ModelRefused):
            load(tmp_path / f"{name}.onnx")
    (tmp_path / "device.onnx").symlink_to("/dev/zero")
    with pytest.raises(ModelRefused, match="not a regular file"):
        load(tmp_path / "device.onnx")
    with pytest.raises(ModelRefused, match="is an ONNX network, not a Keras model"):
        load_model(tmp_path / "missing.onnx")


def test_a_file_that_is_replaced_after_it_was_read_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    expected = load(file)
    real = onnx_backbone.rebuild

    def replace(*arguments: Any, **options: Any) -> bytes:
        write(file, cnn(seed=1))
        return real(*arguments, **options)

    monkeypatch.setattr(onnx_backbone, "rebuild", replace)
    found = load(file)
    pixels = np.full((1, SIDE, SIDE, 3), 99, np.uint8)
    assert found.spec == expected.spec
    assert np.array_equal(found.backbone.embed(pixels), expected.backbone.embed(pixels))


def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    status = os.stat(file)
    monkeypatch.setattr(
        onnx_file.os, "fstat", lambda _: os.stat_result((status.st_mode, *[0] * 5, 100, 0, 0, 0))
    )
    with pytest.raises(ModelRefused, match="changed while it was read"):
        load(file)


def test_long_chains_and_long_names_take_no_long_time(tmp_path: Path) -> None:
    model = cnn()
    count = 3000
    links = [f"l{i}" for i in range(count)]
    pairs = zip(["features", *links], links, strict=False)
    model.graph.node.extend(node("Identity", [before], [after]) for before, after in pairs)
    model.graph.node.append(node("Sum", [links[-1]] * count, ["end"]))
    model.graph.node[-1].name = "last"
    model.graph.node.append(node("Neg", ["end"], ["n" * 2000], name="long"))
    model.graph.output[0].name = "end"
    file = write(tmp_path / "net.onnx", model)
    started = time.perf_counter()
    assert load(file).width == 6
    with pytest.raises(InvalidRequest, match="a name of 2,000 characters"):
        load(file, layer="long")
    with pytest.raises(FeatcacheError, match="has no tensor or node") as caught:
        load(file, layer="l" * 100_000)
    assert len(str(caught.value)) < 4000
    assert time.perf_counter() - started < 10
