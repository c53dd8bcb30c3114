"""ONNX networks as backbones: the rows of ONNX Runtime, on every engine, computed once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from featcache import explain, extract, load_backbone
from featcache.errors import (
    InvalidRequest,
    ModelRefused,
    UnknownLayer,
    WeightsMismatch,
)
from featcache.images.decode import decode, resize
from onnx_files import SIDE, changed, channels_last, cnn, made, transformer, weights, write


def pixels_of(photos: Path) -> Any:
    files = sorted(photos.glob("*/*.png"))
    return np.stack([resize(decode(file.read_bytes()), (SIDE, SIDE)) for file in files])


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def by_hand(model: Any, photos: Path, *, last: bool = False, output: str | None = None) -> Any:
    """The rows of ONNX Runtime for images prepared by hand, one by one."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    rows = []
    for pixels in pixels_of(photos):
        image = ((pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD))[None]
        given = image if last else image.transpose(0, 3, 1, 2)
        rows.append(session.run(output and [output], {name: given})[0][0])
    return np.stack(rows)


CASES: dict[str, tuple[Callable[..., Any], str | None, Callable[[Any], Any]]] = {
    "convolutions": (cnn, None, lambda rows: rows),
    "channels last": (channels_last, None, lambda rows: rows.mean((1, 2))),
    "channels last, largest": (channels_last, "max", lambda rows: rows.max((1, 2))),
    "tokens": (transformer, None, lambda rows: rows.mean(1)),
    "first token": (transformer, "cls", lambda rows: rows[:, 0]),
    "all tokens": (transformer, "flat", lambda rows: rows.reshape(len(rows), -1)),
}


@pytest.mark.parametrize("batch", ["n", 1])
@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_onnx_runtime_called_by_hand(
    photos: Path, tmp_path: Path, case: str, batch: Any
) -> None:
    make, pooling, pool = CASES[case]
    file = write(tmp_path / "net.onnx", make(batch=batch))
    expected = pool(by_hand(make(batch=batch), photos, last=make is channels_last))
    engines = ["onnxruntime", "openvino"] if pooling in (None, "cls") else ["onnxruntime"]
    for engine in engines:
        options = {"engine": engine, "pooling": pooling, "cache_dir": tmp_path / engine}
        found = extract(file, photos, preprocessing="torch", **options)
        assert found.summary.engine == engine
        assert np.abs(np.asarray(found.X) - expected).max() < 1e-4


def test_a_second_run_computes_nothing_and_other_weights_have_another_store(
    photos: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    first = extract(file, photos, preprocessing="torch", batch_size=5)
    assert first.summary.computed == 12
    again = extract(file, photos, preprocessing="torch")
    elsewhere = Path(shutil.copy(file, tmp_path / "other.onnx"))
    moved = extract(elsewhere, photos, preprocessing="torch", engine="openvino")
    assert (again.summary.computed, moved.summary.computed) == (0, 0)
    write(file, cnn(seed=1))
    assert explain(file, photos, preprocessing="torch").differs_in == ["weights"]
    assert extract(file, photos, preprocessing="torch").summary.computed == 12


def key(model: Any, tmp_path: Path, **options: Any) -> str:
    file = write(tmp_path / "key.onnx", model)
    return load_backbone(file, preprocessing="unit", cache_dir=tmp_path, **options).spec.key


def test_the_key_holds_the_graph_and_its_weights_and_nothing_else(tmp_path: Path) -> None:
    plain = key(cnn(), tmp_path)
    renamed = cnn(name="stem/")
    renamed.producer_name, renamed.doc_string = "other", "made elsewhere"
    renamed.metadata_props.add(key="author", value="me")
    for number, node in enumerate(renamed.graph.node):
        node.name, node.doc_string = f"n{number}", "a node"
    nodes = list(renamed.graph.node)
    nodes.insert(3, helper.make_node("Identity", ["stem/relu"], ["same"]))
    nodes[4].input[0] = "same"
    tail = helper.make_node("NotKnown", ["features"], ["scores"], domain="elsewhere")
    del renamed.graph.node[:]
    renamed.graph.node.extend([*nodes, tail])
    constant = renamed.graph.initializer.pop()
    renamed.graph.node.insert(0, helper.make_node("Constant", [], ["variance"], value=constant))
    for same in (renamed, cnn(opset=16), cnn(batch=1), cnn(side="side")):
        size = {"image_size": SIDE} if same.graph.input[0].type.tensor_type.shape.dim[2].dim_param \
            else {}  # fmt: skip
        assert key(same, tmp_path, **size) == plain
    strided = cnn()
    strided.graph.node[0].attribute[0].ints[:] = [1, 1]
    swapped = cnn()
    swapped.graph.node[1].input[2], swapped.graph.node[1].input[3] = "mean", "offset"
    others = [strided, swapped, cnn(seed=1)]
    keys = {plain, *(key(other, tmp_path) for other in others)}
    assert len(keys) == 4
    assert key(cnn(), tmp_path, layer="relu") not in keys


def test_the_key_of_a_network_is_pinned(tmp_path: Path) -> None:
    """It is the name of stores."""
    file = write(tmp_path / "net.onnx", transformer())
    spec = load_backbone(file, preprocessing="clip", cache_dir=tmp_path).spec
    assert (spec.backbone, spec.key[:16]) == ("custom-d45cbb413cfbe73b", "e9b86b087f69ec04")


def test_layers_are_tensors_and_nodes(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", cnn())
    options: dict[str, Any] = {"preprocessing": "torch"}
    by_tensor = extract(file, photos, layer="conv", **options)
    by_node = extract(file, photos, layer="first", **options)
    assert by_tensor.spec == by_node.spec
    assert by_node.summary.computed == 0
    whole = by_hand_of(cnn(), "conv", photos)
    assert np.abs(np.asarray(by_tensor.X) - whole.mean((2, 3))).max() < 1e-4
    assert extract(file, photos, layer="features", **options).spec.layer == "output"
    with pytest.raises(UnknownLayer, match="Near it: relu") as caught:
        extract(file, photos, layer="rellu", **options)
    assert "relu" in caught.value.layers
    with pytest.raises(InvalidRequest, match="no numbers"):
        extract(file, photos, layer=-2, **options)
    with pytest.raises(InvalidRequest, match="one vector an image"):
        extract(file, photos, pooling="cls", **options)


def by_hand_of(model: Any, tensor: str, photos: Path) -> Any:
    model.graph.output.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
    return by_hand(model, photos, output=tensor)


def test_one_of_several_outputs_has_to_be_named(photos: Path, tmp_path: Path) -> None:
    two = cnn()
    two.graph.output.append(helper.make_tensor_value_info("relu", TensorProto.FLOAT, None))
    file = write(tmp_path / "two.onnx", two)
    with pytest.raises(InvalidRequest, match="2 outputs; name one with layer=: features, relu"):
        extract(file, photos, preprocessing="torch")
    assert extract(file, photos, preprocessing="torch", layer="relu").X.shape == (12, 6)


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE", "UINT8"])
def test_inputs_of_other_types_are_given_such_numbers(
    photos: Path, tmp_path: Path, kind: str
) -> None:
    number = TensorProto.DataType.Value(kind)
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["features"], axes=[2, 3], keepdims=0),
    ]
    model = made(nodes, [], ["n", 3, SIDE, SIDE], ["features"], kind=number)
    found = extract(write(tmp_path / "net.onnx", model), photos, preprocessing="none")
    assert np.array_equal(np.asarray(found.X), pixels_of(photos).max((1, 2)))


def test_a_network_that_computes_one_image_at_a_time_is_run_so(
    photos: Path, tmp_path: Path
) -> None:
    """Exported for any number of images, with a number of 1 in its graph."""
    shape = numpy_helper.from_array(np.array([1, -1], np.int64), "shape")
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["conv"]),
        helper.make_node("Reshape", ["conv", "shape"], ["features"]),
    ]
    found = [*weights(0, kernel=(2, 3, 9, 9)), shape]
    model = made(nodes, found, ["n", 3, SIDE, SIDE], ["features"])
    file = write(tmp_path / "net.onnx", model)
    expected = by_hand(model, photos)
    for engine in ("onnxruntime", "openvino"):
        rows = extract(
            file, photos, preprocessing="torch", engine=engine, cache_dir=tmp_path / engine
        )
        assert np.abs(np.asarray(rows.X) - expected).max() < 1e-4


def test_preprocessing_and_an_open_size_have_to_be_given(photos: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "net.onnx", cnn(side="side"))
    with pytest.raises(InvalidRequest, match="How are images prepared"):
        extract(file, photos, image_size=20)
    with pytest.raises(InvalidRequest, match="image_size= must be given"):
        extract(file, photos, preprocessing="unit")
    found = extract(file, photos, preprocessing="unit", image_size=(20, 12))
    assert found.spec.image_size == (20, 12)
    with pytest.raises(InvalidRequest, match="only images of 16 x 16"):
        extract(write(tmp_path / "f.onnx", cnn()), photos, preprocessing="unit", image_size=20)
    with pytest.raises(InvalidRequest, match="cannot take images of 2 x 2 pixels"):
        extract(file, photos, preprocessing="unit", image_size=2)


def test_a_network_that_mixes_images_or_draws_numbers_is_refused(
    photos: Path, tmp_path: Path
) -> None:
    mixing = cnn()
    mixing.graph.node.extend([
        helper.make_node("ReduceMean", ["features"], ["centre"], axes=[0]),
        helper.make_node("Sub", ["features", "centre"], ["mixed"]),
    ])  # fmt: skip
    mixing.graph.output[0].name = "mixed"
    with pytest.raises(InvalidRequest, match="another row in another batch"):
        extract(write(tmp_path / "a.onnx", mixing), photos, preprocessing="unit")
    drawing = changed(cnn())
    drawing.graph.node.extend([
        helper.make_node("RandomNormalLike", ["features"], ["noise"]),
        helper.make_node("Add", ["features", "noise"], ["mixed"]),
    ])  # fmt: skip
    drawing.graph.output[0].name = "mixed"
    with pytest.raises(ModelRefused, match="RandomNormalLike is not accepted: it draws random"):
        extract(write(tmp_path / "b.onnx", drawing), photos, preprocessing="unit")


def test_weights_that_are_nan_are_refused(photos: Path, tmp_path: Path) -> None:
    model = cnn()
    kernel = np.full((6, 3, 3, 3), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
    with pytest.raises(WeightsMismatch, match="162 of 162 values"):
        extract(write(tmp_path / "a.onnx", model), photos, preprocessing="unit")


def test_the_axes_of_a_map_must_follow_from_the_graph(photos: Path, tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([0, 4, 14, 14], np.int64), "shape")
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["conv"]),
        helper.make_node("Reshape", ["conv", "shape"], ["map"]),
    ]
    found = [*weights(0, kernel=(4, 3, 3, 3)), shape]
    file = write(tmp_path / "net.onnx", made(nodes, found, ["n", 3, SIDE, SIDE], ["map"]))
    with pytest.raises(InvalidRequest, match="does not follow from the graph"):
        extract(file, photos, preprocessing="unit")
    assert extract(file, photos, preprocessing="unit", pooling="flat").X.shape == (12, 784)


def test_the_first_token_of_a_keras_model_can_be_taken(photos: Path, tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    tokens = keras.layers.Reshape((16, 48))(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, tokens)
    for engine in ("keras", "openvino"):
        found = extract(model, photos, pooling="cls", engine=engine, cache_dir=tmp_path / engine)
        expected = pixels_of(photos).reshape(12, 16, 48)[:, 0] / 255
        assert np.abs(np.asarray(found.X) - expected).max() < 1e-5


@pytest.mark.parametrize("make", [cnn, channels_last])
def test_channels_that_are_left_open_follow_from_the_first_convolution(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    plain = key(make(), tmp_path)
    opened = make()
    for dimension in opened.graph.input[0].type.tensor_type.shape.dim:
        dimension.Clear()
    assert key(opened, tmp_path, image_size=SIDE) == plain
    # Not from a later one.
    kernel = numpy_helper.from_array(np.ones((6, 4, 3, 3), np.float32), "kernel")
    opened.graph.initializer[0].CopyFrom(kernel)
    with pytest.raises(InvalidRequest, match="takes arrays"):
        key(opened, tmp_path, image_size=SIDE)


def classifier(*, bias: bool, softmax: bool) -> Any:
    model = cnn()
    model.graph.initializer.extend(weights(2, top=(6, 4), offsets=(4,)))
    last = [
        helper.make_node("Dropout", ["features"], ["dropped"]),
        helper.make_node("MatMul", ["dropped", "top"], ["scores"]),
    ]
    if bias:
        last.append(helper.make_node("Add", ["offsets", "scores"], ["sums"]))
    if softmax:
        last.append(helper.make_node("Softmax", [last[-1].output[0]], ["probabilities"], axis=1))
    model.graph.node.extend(last)
    model.graph.output[0].name = last[-1].output[0]
    return model


@pytest.mark.parametrize(("bias", "softmax"), [(True, False), (False, True)])
def test_an_output_that_may_be_class_scores_is_told(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, bias: bool, softmax: bool
) -> None:
    file = write(tmp_path / "net.onnx", classifier(bias=bias, softmax=softmax))
    options: dict[str, Any] = {"preprocessing": "unit", "cache_dir": tmp_path}
    load_backbone(file, **options)
    assert "layer='dropped', which feeds that layer" in caplog.text
    caplog.clear()
    load_backbone(file, layer="output", **options)
    load_backbone(file, layer="dropped", **options)
    assert caplog.text == ""
