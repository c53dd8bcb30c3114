"""Keras models as ONNX graphs: each kind of layer, and the families of keras.applications."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from featcache import Normalization, load_backbone
from featcache.backbones.keras_backend import import_keras
from featcache.backbones.preprocessing import apply, images_of_size
from featcache.backbones.to_onnx import network
from featcache.backbones.to_onnx import writer as writing
from featcache.backbones.to_onnx.file import encode_network, run_network
from featcache.errors import NotExportable

keras = import_keras()
layers = keras.layers
LayerScale = import_module("keras.src.applications.convnext").LayerScale
CustomScaleLayer = import_module("keras.src.applications.inception_resnet_v2").CustomScaleLayer
IMAGE = keras.Input((11, 14, 3))


def converted(model: Any, rule: Any = "unit", size: tuple[int, int] | None = None) -> Any:
    """What the graph of a model gives for some images, and what the model gives."""
    size = size or tuple(model.inputs[0].shape[1:3])
    backbone: Any = SimpleNamespace(model=model, rule=rule)
    encoded = encode_network(backbone, size, lambda _, x: x, model.output_shape[-1], {})
    images = images_of_size(3, size)
    expected = np.asarray(model(images.astype("f4") / 255, training=False))
    return run_network(encoded, images), expected


def check(model: Any, **options: Any) -> None:
    found, expected = converted(model, **options)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(expected).max() > 1e-6


def randomized(model: Any) -> Any:
    """Give each weight random values, as after a training; a variance stays positive."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.normal(size=weight.shape).astype("f4") / 3
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


LAYERS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: layers.Conv2D(6, 3, groups=3, activation="relu"),
    "same padding of odd sides": lambda: layers.Conv2D(4, (2, 5), (2, 3), "same", use_bias=False),
    "dilated": lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2),
    "separable": lambda: layers.SeparableConv2D(5, 3, 2, "same", depth_multiplier=2),
    "separable without bias": lambda: layers.SeparableConv2D(5, 3, use_bias=False),
    "batch normalization": lambda: layers.BatchNormalization(),
    "plain batch normalization": lambda: layers.BatchNormalization(scale=False, center=False),
    "layer normalization": lambda: layers.LayerNormalization(),
    "plain layer normalization": lambda: layers.LayerNormalization(scale=False, center=False),
    "normalization": lambda: layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3]),
    "rescaling": lambda: layers.Rescaling([2.0, 3.0, 4.0], offset=-1.0),
    "dense": lambda: layers.Dense(7, activation="gelu"),
    "dense without bias": lambda: layers.Dense(7, use_bias=False),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((14, -1)),
    "permute": lambda: layers.Permute((3, 1, 2)),
    "padding": lambda: layers.ZeroPadding2D(((1, 0), (2, 3))),
    "cropping": lambda: layers.Cropping2D(((1, 2), (0, 3))),
    "centre": lambda: layers.CenterCrop(8, 9),
    "upsampling": lambda: layers.UpSampling2D((2, 3)),
    "bilinear upsampling": lambda: layers.UpSampling2D(2, interpolation="bilinear"),
    "maximum": lambda: layers.MaxPooling2D(3, 2, "same"),
    "maximum of what is complete": lambda: layers.MaxPooling2D((2, 3)),
    "average": lambda: layers.AveragePooling2D(3, 2, "same"),
    "global average": lambda: layers.GlobalAveragePooling2D(),
    "global average of images": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "global maximum": lambda: layers.GlobalMaxPooling2D(),
    "dropout": lambda: layers.Dropout(0.5),
    "relu": lambda: layers.ReLU(),
    "relu6": lambda: layers.ReLU(6.0),
    "leaky and limited": lambda: layers.ReLU(0.5, negative_slope=0.1),
    "leaky relu": lambda: layers.ReLU(negative_slope=0.1),
    "leaky": lambda: layers.LeakyReLU(0.3),
    "elu": lambda: layers.ELU(0.7),
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    "softmax": lambda: layers.Softmax(),
    "einsum": lambda: layers.EinsumDense("abcd,de->abce", (11, 14, 5)),
    "scales of ConvNeXt": lambda: LayerScale(0.5, 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_same_in_onnx(name: str) -> None:
    check(randomized(keras.Model(IMAGE, LAYERS[name]()(IMAGE))))


def test_layers_are_the_same_behind_a_convolution_with_its_channels_second() -> None:
    names = ("rescaling", "dense", "prelu", "normalization", "layer normalization", "permute")
    for name in names:
        x = layers.Conv2D(3, 3, padding="same")(IMAGE)
        check(randomized(keras.Model(IMAGE, LAYERS[name]()(x))))


def test_activations_are_the_same() -> None:
    names = (
        "elu", "exponential", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "linear",
        "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus",
        "softsign", "tanh",
    )  # fmt: skip
    shifted = layers.Rescaling(12.0, offset=-6.0)(IMAGE)
    found = [layers.Activation(name)(shifted) for name in names]
    check(keras.Model(IMAGE, layers.Concatenate()(found)))


def test_tensors_are_joined() -> None:
    x = layers.Conv2D(3, 3, padding="same")(IMAGE)
    several = [
        layers.Add()([x, IMAGE, x]), layers.Subtract()([IMAGE, x]), layers.Average()([x, IMAGE]),
        layers.Maximum()([x, IMAGE]), layers.Minimum()([x, IMAGE]),
        layers.Multiply()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)]),
        2.0 * x + np.float32([1, 2, 3]), x - 0.5, IMAGE / 4.0, CustomScaleLayer(0.3)([x, IMAGE]),
    ]  # fmt: skip
    one = layers.Concatenate()(several)
    tall = layers.Concatenate(axis=1)([one, one])
    wide = layers.Concatenate(axis=-2)([tall, tall])
    flat = layers.Concatenate(axis=1)([layers.Flatten()(wide), layers.Flatten()(IMAGE)])
    check(randomized(keras.Model(IMAGE, flat)))


def test_tokens_models_within_models_and_open_sizes() -> None:
    image = keras.Input((None, None, 3))
    inner = keras.Sequential([layers.Conv2D(4, 3, strides=2, padding="same"), layers.ReLU()])
    other = keras.Input((11, 14, 3))
    tokens = layers.Reshape((42, 4))(inner(other))
    block = keras.Model(other, layers.BatchNormalization()(tokens))
    out = layers.Concatenate()([
        block(IMAGE)[:, 0], layers.GlobalAveragePooling1D()(block(IMAGE)),
        layers.GlobalMaxPooling1D()(block(IMAGE)),
    ])  # fmt: skip
    check(randomized(keras.Model(IMAGE, out)))
    x = layers.MaxPooling2D(3, 2, "same")(inner(image))
    x = layers.Add()([x, layers.Conv2D(4, 1, 4, "same")(image)])
    check(randomized(keras.Model(image, layers.Flatten()(x))), size=(11, 14))


def test_preprocessing_is_part_of_the_graph() -> None:
    model = keras.Model(IMAGE, layers.Flatten()(IMAGE))
    images = images_of_size(3, (11, 14)).astype("f8")
    rules = {
        "none": images, "tf": images / 127.5 - 1,
        "caffe": images[..., ::-1] - [103.939, 116.779, 123.68],
        Normalization(mean=(0.1, 0.2, 0.3), std=0.5, channels="bgr"):
            (images[..., ::-1] / 255 - [0.1, 0.2, 0.3]) / 0.5,
    }  # fmt: skip
    for rule, expected in rules.items():
        found, _ = converted(model, rule)
        np.testing.assert_allclose(found, expected.reshape(3, -1), rtol=1e-5, atol=1e-4)


class Inner(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))


class Outer(layers.Layer):
    """Several outputs, functions of Keras, a layer within, and rows that all images share."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def build(self, shape: Any) -> None:
        self.first = self.add_weight(shape=(1, 2, shape[-1]))
        self.query = self.add_weight(shape=(1, 1, 1, shape[-1]))

    def call(self, x: Any, training: Any = None) -> Any:
        ops, count = keras.ops, keras.ops.shape(x)[0]
        x = ops.concatenate([ops.repeat(self.first, count, axis=0), x], axis=1)
        x = x + np.linspace(0, 1, x.shape[1] * x.shape[2]).reshape(1, *x.shape[1:]).astype("f4")
        tokens = ops.softmax(self.inner(x[..., 1:, ::2], training=training))
        x4 = ops.reshape(x, (count, -1, 1, x.shape[-1]))
        pooled = ops.dot_product_attention(ops.repeat(self.query, count, axis=0), x4, x4)
        gelus = ops.gelu(x, approximate=True) * ops.gelu(x, approximate=False)
        means = ops.mean(gelus, axis=(1, -1), keepdims=True) + ops.mean(x, axis=1, keepdims=True)
        return tokens[:, -1], {"pooled": pooled[:, 0, 0], "all": means * ops.sigmoid(x)}


def test_layers_of_your_own_are_written_by_what_they_do() -> None:
    tokens = layers.Reshape((14, 33))(IMAGE)
    attended = layers.MultiHeadAttention(3, 5, value_dim=4)(tokens, layers.Dense(6)(tokens))
    last, several = Outer()(attended)
    named = keras.Input((14, 33), name="x")
    inner = keras.Model({"x": named}, layers.Flatten()(named))
    parts = [last, several["pooled"], layers.Flatten()(several["all"]), inner({"x": attended})]
    scaled = IMAGE * np.linspace(0, 1, 462).reshape(11, 14, 3).astype("f4")
    seen = layers.Conv2D(2, 1, activation=lambda x: x * keras.ops.sigmoid(1.7 * x))(IMAGE)
    seen = seen * np.linspace(0, 1, 308).reshape(11, 14, 2).astype("f4")
    parts += [layers.Flatten()(scaled), layers.Flatten()(seen)]
    check(randomized(keras.Model(IMAGE, layers.Concatenate()(parts))))


class Unknown(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.sort(x)


class Undeclared(layers.Layer):
    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def call(self, x: Any) -> Any:
        return x, x + 1


class Constant(layers.Layer):
    def call(self, x: Any) -> Any:
        return keras.ops.zeros((1, 3))


def of(call: Callable[[Any], Any]) -> Any:
    """A layer that does what a function does."""

    class Own(layers.Layer):
        def call(self, x: Any) -> Any:
            return call(x)

    return Own()


ops = keras.ops
REFUSED: dict[str, Callable[[], Any]] = {
    "'mine' of class Unknown .* its part 'sort.*' of class Sort cannot, it is not one": lambda: (
        Unknown(name="mine")
    ),
    "class Undeclared .* its outputs are not known": lambda: Undeclared(),
    "class Constant .* what it does is not known": lambda: Constant(),
    "its data_format is 'channels_first'": lambda: layers.ZeroPadding2D(
        data_format="channels_first"
    ),
    "its axis 1 is not the last": lambda: layers.BatchNormalization(axis=1),
    r"its axis \[2\] is not the last": lambda: layers.LayerNormalization(axis=2),
    "its interpolation 'bicubic'": lambda: layers.UpSampling2D(interpolation="bicubic"),
    "its threshold 0.5": lambda: layers.ReLU(threshold=0.5),
    "is not a single one": lambda: layers.Softmax(axis=(1, 2)),
    "are smaller, so it resizes them": lambda: layers.CenterCrop(20, 20),
    "it has rms_scaling=True": lambda: layers.LayerNormalization(rms_scaling=True),
    "it has invert=True": lambda: layers.Normalization(mean=1.0, variance=1.0, invert=True),
    "is not a matrix product": lambda: layers.EinsumDense("abcd,ce->abed", (11, 5, 3)),
    "it makes 11 rows of one image": lambda: of(lambda x: ops.reshape(x, (11, 14, 3))),
    "the indices .* not known": lambda: of(lambda x: x[:, ::-1]),
    "with several tensors, such as a mask": lambda: of(lambda x: layers.Softmax()(x, x)),
    "the indices .* are not known": lambda: of(lambda x: x[:, None]),
    "do not begin with that of the images": lambda: of(lambda x: ops.transpose(x)),
    "takes in other images": lambda: of(lambda x: ops.mean(x, axis=(0, 1))),
    "its axis None takes in other": lambda: of(lambda x: ops.mean(x, keepdims=True)),
    "different numbers of axes": lambda: of(lambda x: x + x[:, 0]),
    "it has a bias, a mask": lambda: of(
        lambda x: ops.dot_product_attention(x, x, x, is_causal=True)
    ),
}


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(message: str) -> None:
    with pytest.raises(NotExportable, match=message):
        converted(keras.Model(IMAGE, REFUSED[message]()(IMAGE)))


def test_graphs_that_cannot_be_written_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = keras.Input((11, 14, 3))
    both = keras.Model([IMAGE, other], layers.Add()([IMAGE, other]))
    with pytest.raises(NotExportable, match="several inputs"):
        converted(keras.Model(IMAGE, both([IMAGE, IMAGE])))
    with pytest.raises(NotExportable, match="ONNX Runtime cannot run"):
        run_network(b"no network", np.zeros((1, 1, 1, 3), np.uint8))
    with monkeypatch.context() as patch:
        patch.setitem(network._LAYERS, "Flatten", lambda *_: 1 // 0)
        with pytest.raises(NotExportable, match=r"how it is called is not known \(integer div"):
            converted(keras.Model(IMAGE, layers.Flatten()(IMAGE)))
    monkeypatch.setattr(writing, "MAX_WEIGHT_BYTES", 100)
    with pytest.raises(NotExportable, match="more than 2 GB"):
        converted(keras.Model(IMAGE, layers.Conv2D(9, 3)(IMAGE)))


FAMILIES = {
    "mobilenet_v2": 64, "pocket": 48, "mobilenet_v3_small": 64, "vgg16": 32, "resnet50": 32,
    "resnet50_v2": 32, "mobilenet": 32, "xception": 71, "densenet121": 32, "inception_v3": 75,
    "inception_resnet_v2": 75, "nasnet_mobile": 64, "efficientnet_b0": 64,
    "efficientnet_v2_b0": 64, "convnext_tiny": 32,
}  # fmt: skip
QUICK = {"mobilenet_v2", "pocket"}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_families_give_the_same_embeddings(name: str) -> None:
    backbone = load_backbone(name, weights="random", image_size=FAMILIES[name]).backbone
    size = (FAMILIES[name], FAMILIES[name])
    images = images_of_size(3, size)
    set_averages(backbone, images)
    encoded = encode_network(backbone, size, lambda _, x: x, backbone.width, {})
    found, expected = run_network(encoded, images), backbone.embed_untraced(images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(expected - expected[:1]).max() > 1e-3 * np.abs(expected).max()


def set_averages(backbone: Any, images: Any) -> None:
    """Normalize batches by what these images give, as after a training; else they look alike."""
    generator = np.random.default_rng(0)
    for layer in backbone.model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.1
            layer.beta.assign(generator.uniform(-0.2, 0.2, layer.beta.shape))
    backbone.model([apply(backbone.rule, images)], training=True)
