"""Check of the configuration of a saved network, without Keras.

Keras resolves the names in a configuration to classes and functions: to layers, but also to
anything else that it exports or that a module contains. Therefore only the names listed here are
accepted, whose classes and functions only compute. Every string in a configuration is checked,
since arguments of a layer may be names as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average AveragePooling1D
AveragePooling2D AveragePooling3D BatchNormalization Bidirectional CenterCrop Concatenate Conv1D
Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU
EinsumDense Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity InputLayer
LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum
Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute RMSNormalization RNN
RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
RandomShear RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax Solarization SpatialDropout1D
SpatialDropout2D SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed
UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
"""
# None of these takes a function. Their outputs have the size that Keras infers, which is limited.
_OPERATIONS = {
    "core": "Cast Slice StopGradient",
    "image": "Resize RGBToGrayscale",
    "linalg": "Norm",
    "math": "Erf Logsumexp Rsqrt",
    "nn": """
        AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm Celu Conv ConvTranspose
        DepthwiseConv DotProductAttention Elu Gelu Glu HardShrink HardSigmoid HardSilu HardTanh
        LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments Normalize RMSNorm Relu Relu6 Selu
        SeparableConv Sigmoid Silu SoftShrink Softmax Softplus Softsign SparsePlus SparseSigmoid
        Sparsemax Squareplus TanhShrink Threshold
    """,
    "numpy": """
        Absolute Add All Amax Amin Any Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Argmax
        Argmin Average Ceil Clip Concatenate Cos Cosh Cumprod Cumsum Divide DivideNoNan Dot Einsum
        Equal Exp Exp2 ExpandDims Expm1 Flip Floor FloorDivide GetItem Greater GreaterEqual Isfinite
        Less LessEqual Log Log10 Log1p Log2 Logaddexp LogicalAnd LogicalNot LogicalOr Matmul Max
        Maximum Mean Median Min Minimum Mod Moveaxis Multiply Negative Nonzero NotEqual OnesLike Pad
        Power Prod Ravel Reciprocal Repeat Reshape Roll Round Sign Sin Sinh Sort Split Sqrt Square
        Squeeze Stack Std Subtract Sum Swapaxes Take Tan Tanh Tensordot Tile Transpose TrueDivide
        Var Vdot Where ZerosLike
    """,
}
_INITIALIZERS = """
Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling Zeros
"""
_NETWORKS = {"Functional", "Model", "Sequential"}
_CLASSES: dict[str, set[str]] = {
    "keras": {"DTypePolicy", *_NETWORKS},
    "keras.constraints": {"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"},
    "keras.dtype_policies": {"DTypePolicy"},
    "keras.initializers": set(_INITIALIZERS.split()),
    "keras.layers": set(_LAYERS.split()),
    "keras.models": _NETWORKS,
    "keras.regularizers": {"L1", "L1L2", "L2", "OrthogonalRegularizer"},
    "keras.src.applications.convnext": {"LayerScale"},
    "keras.src.applications.inception_resnet_v2": {"CustomScaleLayer"},
    "keras.src.models.functional": {"Functional"},
    "keras.src.models.model": {"Model"},
    "keras.src.models.sequential": {"Sequential"},
    **{f"keras.src.ops.{part}": set(names.split()) for part, names in _OPERATIONS.items()},
}
_ACTIVATIONS = {
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign",
    "sparse_plus", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink", "threshold",
}  # fmt: skip
_FUNCTION_MODULES = {"builtins", "keras.activations", "keras.src.activations.activations"}
_DTYPES = {
    "bfloat16", "bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "mixed_bfloat16", "mixed_float16",
}  # fmt: skip
# The strings that are allowed for any key: none is the name of a class that executes anything.
_WORDS = _ACTIVATIONS | _DTYPES | {
    "area", "avg", "ave", "average", "batch", "bicubic", "bilinear", "cast", "channels_first",
    "channels_last", "causal", "concat", "constant", "crop_to_aspect_ratio", "dot", "fan_avg",
    "fan_in", "fan_out", "full", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform",
    "horizontal", "horizontal_and_vertical", "identity", "keepdims", "l1", "l2", "lanczos3",
    "lanczos5", "lecun_normal", "lecun_uniform", "max", "max_norm", "mean", "min", "min_max_norm",
    "mul", "nearest", "non_neg", "none", "normal", "one", "ones", "orthogonal", "random_normal",
    "random_uniform", "reflect", "rgb", "same", "scaled_dot_product", "sum", "symmetric",
    "truncated_normal", "uniform", "unit_norm", "untruncated_normal", "valid", "vertical", "wrap",
    "zero", "zeros",
}  # fmt: skip
# Names of layers, tensors and axes, which Keras does not resolve.
_LABEL_KEYS = {"name", "input_layers", "output_layers", "keras_history", "inputs_struct"}
_ENDS = {"input_layers", "output_layers"}
_LABEL = re.compile(r"[\w.\-/:+ ]{0,300}")
_EQUATION_KEYS = {"equation", "bias_axes", "subscripts"}
_EQUATION = re.compile(r"[A-Za-z.,> \-]{0,100}")
_RECORD_KEYS = {
    "build_config", "class_name", "compile_config", "config", "inbound_nodes", "module", "name",
    "registered_name", "shared_object_id",
}  # fmt: skip
_NAME_KEYS = {"class_name", "module", "registered_name", "spec_name", "custom_objects"}
_VALUE_RECORDS = {
    "__ellipsis__": set(),
    "__keras_tensor__": {"dtype", "keras_history", "shape", "sparse", "ragged", "name"},
    "__numpy__": {"dtype", "value"},
    "__slice__": {"start", "step", "stop"},
    "__tensor__": {"dtype", "value"},
}
MAX_VALUES = 5_000_000
MAX_DEPTH = 60
MAX_NUMBER = 2**31 - 1
# Above the channels, units or heads of any real network; each may take memory when it is built.
MAX_SIZE = 1_000_000
# Each of these creates as many tensors or rows of padding, which the output shape does not show.
MAX_PARTS = 4096
# Convolutions with larger kernels or strides take minutes, even if their output is small.
MAX_STEP = 1024
_STEPS = {"block_size", "depth_multiplier", "kernel_size", "output_padding", "pool_size", "strides"}
_PARTS = {"dilation_rate", "dilations", "indices_or_sections"}
# Calls of layers in total, including those in networks that are called several times.
MAX_CALLS = 100_000
# For each reference to a later layer Keras may iterate over all layers.
MAX_REQUEUED = 2_000_000
_BATCH_SHAPE_KEYS = ("batch_shape", "batch_input_shape")
_SIZES = {
    "units", "filters", "input_dim", "output_dim", "num_heads", "key_dim",
    "value_dim", "head_dim", "num_query_heads", "num_key_value_heads", "dilation_rate", "size",
    "padding", "cropping", "n", "height", "width",
    "target_shape", "output_shape", "batch_shape", "input_shape", "shape", "groups",
}  # fmt: skip


def check_network(config: Any) -> None:
    """Raise `ValueError` unless a configuration describes a network of allowed layers only.

    Parameters
    ----------
    config : Any
        The parsed ``config.json`` of a ``.keras`` file.

    Raises
    ------
    ValueError
        With the first name, key or number that is not allowed.
    """
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ValueError("it does not describe a network")
    if str(config.get("class_name")) not in _NETWORKS:
        raise ValueError(f"it is a {_shown(config.get('class_name'))}, not a network")
    # Keras ignores it as well, since the model is loaded without compiling it.
    _Check().record({**config, "compile_config": None}, 0)
    calls = _calls(config["config"], {})
    if calls > MAX_CALLS:
        raise ValueError(f"it calls more than {MAX_CALLS:,} layers")


class _Check:
    """Traversal of a configuration, with a limit on the number of values."""

    def __init__(self) -> None:
        self._count = 0

    def value(self, value: Any, key: str, depth: int) -> None:
        """Check the value of a key, or each member if it is a list."""
        self._count += 1
        if self._count > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError("it holds too many values, or they are nested too deeply")
        if isinstance(value, dict):
            if "class_name" in value:
                self.record(value, depth + 1)
            else:
                self.members(value, depth + 1, key if key in _ENDS else None)
        elif isinstance(value, list):
            for member in value:
                self.value(member, key, depth + 1)
        elif isinstance(value, str):
            _check_text(value, key)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            _check_number(value, key)

    def members(self, values: Mapping[str, Any], depth: int, end: str | None = None) -> None:
        """Check a dict without a class name; `end` is its key if it lists inputs or outputs."""
        _check_batches(values)
        for key, value in values.items():
            if key in _NAME_KEYS:
                raise ValueError(f"it holds {_shown(key)} outside of a layer's record")
            if not _LABEL.fullmatch(key):
                raise ValueError(f"it holds the key {_shown(key)}")
            self.value(value, end or key, depth)

    def record(self, record: Mapping[str, Any], depth: int) -> None:
        """Check a serialized object or function."""
        kind, module, inner = record["class_name"], record.get("module"), record.get("config")
        if not isinstance(kind, str):
            raise ValueError("the class_name of a record is not a string")
        if kind in _VALUE_RECORDS and module is None:
            self._value_record(kind, record, inner, depth)
            return
        unknown = sorted(set(record) - _RECORD_KEYS)
        if unknown:
            raise ValueError(f"the record of a {_shown(kind)} holds {_shown(unknown[0])}")
        if kind == "function":
            _check_function(record)
            return
        named = f"{module}.{kind}" if module else str(kind)
        if kind not in _CLASSES.get(str(module), ()):
            raise ValueError(f"it names {_shown(named)}, which is not an allowed layer")
        if record.get("registered_name") not in (None, kind):
            raise ValueError(f"it names {_shown(record['registered_name'])} for a {kind}")
        if record.get("compile_config"):
            raise ValueError("a network within the network is compiled; save it uncompiled")
        if not isinstance(inner, dict):
            raise ValueError(f"the configuration of a {kind} is not an object")
        self.members(inner, depth)
        if type(record.get("shared_object_id", 0)) is not int:  # an address in memory: any integer
            raise ValueError(f"the shared_object_id of a {kind} is not an integer")
        _check_nodes(record.get("inbound_nodes"))
        _check_order(inner.get("layers"))
        for part in ("build_config", "inbound_nodes", "name"):
            self.value(record.get(part), part, depth)

    def _value_record(self, kind: str, record: Mapping[str, Any], inner: Any, depth: int) -> None:
        if set(record) - {"class_name", "config", "module", "registered_name"}:
            raise ValueError(f"a {kind} holds more than its value")
        if record.get("registered_name") is not None:
            raise ValueError(f"it names {_shown(record['registered_name'])} for a {kind}")
        if not isinstance(inner, dict):
            if inner is None and kind == "__ellipsis__":
                return
            raise ValueError(f"the value of a {kind} is not an object")
        if set(inner) - _VALUE_RECORDS[kind]:
            raise ValueError(f"a {kind} holds more than its value")
        self.members(inner, depth)


def _check_batches(values: Mapping[str, Any]) -> None:
    """Raise if the output of a layer for an image could depend on other images.

    State that is kept between batches also takes memory that the weights in the file do not show.
    """
    if values.get("stateful") not in (None, False):
        raise ValueError(
            "it has a layer with stateful=True, whose output depends on earlier images"
        )
    sizes = [values.get("batch_size")]
    sizes += [s[0] for key in _BATCH_SHAPE_KEYS if isinstance(s := values.get(key), list) and s]
    if fixed := [size for size in sizes if size is not None]:
        size = str(fixed[0])[:30]
        raise ValueError(f"it takes only batches of {size} images, instead of any size")


def _check_function(record: Mapping[str, Any]) -> None:
    name = record.get("config")
    module, registered = record.get("module"), record.get("registered_name")
    known = isinstance(name, str) and name in _ACTIVATIONS and module in _FUNCTION_MODULES
    # Keras may look up either name.
    if not known or registered not in (None, "function", name):
        shown = f"{module}.function {name} {registered}"
        raise ValueError(f"it names {_shown(shown)}, which is not an allowed activation")


def _check_text(text: str, key: str) -> None:
    if key in _LABEL_KEYS:
        fits = _LABEL.fullmatch(text)
    elif key in _EQUATION_KEYS:
        fits = _EQUATION.fullmatch(text)
    else:
        fits = text in _WORDS  # type: ignore[assignment]
    if not fits:
        raise ValueError(f"its {_shown(key)} is {_shown(text)}, which is not an allowed string")


def _check_nodes(nodes: Any) -> None:
    """Raise unless each call has a tensor: a call with only constants runs while loading."""
    for node in nodes if isinstance(nodes, list) else ():
        found = {"class_name": "__keras_tensor__"}.items()
        if isinstance(node, dict) and not any(found <= one.items() for one in _nested_dicts(node)):
            raise ValueError("it calls a layer on constants only")


def _check_order(layers: Any) -> None:
    """Raise if Keras, which queues calls until their inputs exist, would retry them too often."""
    if not isinstance(layers, list):
        return
    known: set[str] = set()
    early = 0
    for layer in layers:
        for one in _nested_dicts(layer.get("inbound_nodes")) if isinstance(layer, dict) else ():
            history = one.get("keras_history")
            if isinstance(history, list) and history and str(history[0]) not in known:
                early += 1
        known.add(str(layer.get("name")) if isinstance(layer, dict) else "")
    if early * len(layers) > MAX_REQUEUED:
        raise ValueError("its layers are not in the order of their calls")


def _calls(value: Any, shared: dict[Any, int]) -> int:
    """Return how many objects a call of a network visits, including repeated visits.

    Keras follows each call of a network that is called several times, also if calls are nested.
    """
    if isinstance(value, list):
        return sum(_calls(member, shared) for member in value)
    if not isinstance(value, dict):
        return 0
    if "class_name" not in value:
        return sum(_calls(member, shared) for member in value.values())
    count = 1 + _calls(value.get("config"), shared)
    if (known := value.get("shared_object_id")) is not None:
        # Keras uses the first object with an id for all others with that id.
        count = shared[known] = max(count, shared.get(known, 0))
    nodes = value.get("inbound_nodes")
    return count * max(1, len(nodes) if isinstance(nodes, list) else 1)


def _nested_dicts(value: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, (dict, list)):
        return
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value:
        if isinstance(member, (dict, list)):
            yield from _nested_dicts(member)


def _check_number(number: float, key: str) -> None:
    limits = ((_STEPS, MAX_STEP), (_PARTS, MAX_PARTS), (_SIZES, MAX_SIZE))
    most = next((limit for keys, limit in limits if key in keys), MAX_NUMBER)
    # A float may have any value: it is not a size, and NaN is detected in the features.
    if isinstance(number, int) and abs(number) > most:
        raise ValueError(f"its {_shown(key)} is {str(number)[:30]}; the limit is {most:,}")


def _shown(value: Any) -> str:
    return repr(str(value)[:120])
