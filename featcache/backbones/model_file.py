"""Untrusted saved models: checked without Keras, and loaded only if they cannot run code.

A ``.keras`` file is a zip archive with the network as JSON and its weights as HDF5. Keras'
safe mode refuses code in it, but not all classes and functions that the JSON may name, which
has let files run code or read other files (CVE-2025-1550, CVE-2025-8747, CVE-2025-12058).
Therefore only the layers in `featcache.backbones.model_config`, which only compute, are accepted.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard, cast

from .._io.paths import absolute_path
from .._io.stored_zip import StoredMember, check_regular_file, check_stored
from .._io.wording import first_line
from ..errors import ModelRefused
from ..hdf5.sandbox import unsafe_hdf5_reason
from .hub.preset import is_preset
from .keras_backend import import_keras, preserve_random_state, quiet_stderr
from .keras_types import KerasModel
from .model_config import check_network
from .onnx.file import is_onnx_file
from .own_code import operations

KERAS_SUFFIX = ".keras"
LEGACY_SUFFIXES = (".h5", ".hdf5")
_WEIGHTS_SUFFIX = ".weights.h5"
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {_CONFIG, _WEIGHTS, "metadata.json"}
_MAX_CONFIG_BYTES = 32 * 2**20
_COPY_BYTES = 2**20
# A network may have some weights that are not in its file, such as counters.
MAX_EXTRA_WEIGHTS = 1_000_000
# Maximum number of values of one layer for one image: 4 GiB in float32.
_MAX_OUTPUTS = 2**30
_ASSUMED_SIDE = 512
# Keras unrolls time steps in the graph, which takes minutes for some thousands.
_MAX_LOOPS = 4096
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
    NotImplementedError, RuntimeError, MemoryError, OverflowError, IndexError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
_PATCHING = threading.Lock()


@dataclass(frozen=True)
class ModelFile:
    """A ``.keras`` file that has passed all checks.

    Attributes
    ----------
    path : Path
        Absolute.
    kinds : tuple of str
        Classes of the network's first layers.
    input_size : (int, int) or None
        Height and width of its input, if they are fixed.
    weights_bytes : int
        Size of the weights in the file, which bounds what the network may allocate.
    """

    path: Path
    kinds: tuple[str, ...]
    input_size: tuple[int, int] | None
    weights_bytes: int = 0

    @property
    def name(self) -> str:
        """The file name without its ending."""
        return self.path.stem


def is_keras_file(backbone: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether the argument `backbone` is the path of a model that Keras saved."""
    if not isinstance(backbone, (str, os.PathLike)):
        return False
    return os.fspath(backbone).lower().endswith((KERAS_SUFFIX, *LEGACY_SUFFIXES))


def is_model_file(backbone: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return whether the argument `backbone` is the path of a model, or a preset of keras-hub."""
    return is_keras_file(backbone) or is_onnx_file(backbone) or is_preset(backbone)


def inspect_model_file(path: str | os.PathLike[str]) -> ModelFile:
    """Check a ``.keras`` file, without Keras.

    Raises
    ------
    ModelRefused
        If it does not exist, is not a valid ``.keras`` file, or could run code.
    """
    path = _model_path(path)
    if path.name.lower().endswith(LEGACY_SUFFIXES):
        raise ModelRefused(
            f"{path} is a model in Keras' legacy format, which can contain code that runs when it "
            "is loaded. If you trust its author, use featcache.load_model(path, allow_h5=True) or "
            "--allow-h5. Saved again with model.save('name.keras') it can be loaded safely.",
            path=path,
        )
    try:
        check_regular_file(path)
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            check_stored(archive, path, {_CONFIG, _WEIGHTS})
            odd = sorted(set(archive.namelist()) - _MEMBERS)
            if odd:
                raise ValueError(f"it holds {odd[0]!r}, which does not belong in a model file")
            if archive.getinfo(_CONFIG).file_size > _MAX_CONFIG_BYTES:
                raise ValueError(f"{_CONFIG} is too long")
            config = _uncompiled(json.loads(archive.read(_CONFIG)))
            check_network(config)
            reason = unsafe_hdf5_reason(
                cast(IO[bytes], StoredMember(file, archive.getinfo(_WEIGHTS)))
            )
            if reason is not None:
                raise ValueError(f"of its weights, {reason}")
            size = archive.getinfo(_WEIGHTS).file_size
            return ModelFile(path, _kinds(config), _input_size(config), size)
    except FileNotFoundError as error:
        raise ModelRefused(f"There is no model file {path}.", path=path) from error
    except _UNREADABLE as error:
        raise _refusal(path, error) from error


def _model_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path; raise `ModelRefused` for a weights file, which has no network."""
    path = absolute_path(path)
    if path.name.lower().endswith(_WEIGHTS_SUFFIX):
        raise ModelRefused(
            f"{path} contains weights only, not a model. Name the backbone that they belong to, "
            "such as 'vgg16', and pass the file as weights= (--weights); for your own network, "
            "load them into it and pass the keras.Model.",
            path=path,
        )
    if is_onnx_file(path):
        raise ModelRefused(
            f"{path} is an ONNX network, not a Keras model: pass its path as the backbone.",
            path=path,
        )
    return path


def load_model(path: str | os.PathLike[str], *, allow_h5: bool = False) -> KerasModel:
    """Load a saved Keras model without running code from its file.

    The file is checked before Keras opens it; it may be untrusted.

    Parameters
    ----------
    path : path-like
        A ``.keras`` file with layers of Keras only. Load a model with layers of your own with
        ``keras.saving.load_model`` and pass the model instead.
    allow_h5 : bool
        Also accept a model in the legacy format, ``.h5``, which can run code: only for files
        that you trust.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    ModelRefused
        If the file does not exist, is not a valid model, or could run code; carries `path` and
        usually `reason`.
    InspectionError
        If the process that inspects the weights cannot be started.
    """
    path = _model_path(path)
    if allow_h5 and path.name.lower().endswith(LEGACY_SUFFIXES):
        if not path.is_file():
            raise ModelRefused(f"There is no model file {path}.", path=path)
        reason = unsafe_hdf5_reason(path)
        if reason is not None:
            raise _refusal(path, ValueError(reason))
        return _load(path, path, None)
    found = inspect_model_file(path)
    with tempfile.TemporaryDirectory(prefix="featcache-model-") as folder:
        # Keras opens the file by its name: another one could have taken its place by then.
        copy = Path(folder) / f"model{KERAS_SUFFIX}"
        _copy(found.path, copy)
        return _load(copy, path, inspect_model_file(copy).weights_bytes)


def _copy(source: Path, target: Path) -> None:
    """Copy an archive without the state of the optimizer, which Keras would read in part."""
    try:
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "x") as new:
            for member in old.infolist():
                with old.open(member) as read, new.open(member.filename, "w") as written:
                    if member.filename == _CONFIG:
                        config = _uncompiled(json.load(read))
                        written.write(json.dumps(config).encode())
                    else:
                        shutil.copyfileobj(read, written, _COPY_BYTES)
    except _UNREADABLE as error:
        raise _refusal(source, error) from error


def _uncompiled(config: Any) -> Any:
    """Remove optimizers and losses of networks, which features do not need."""
    if isinstance(config, dict):
        return {key: _uncompiled(one) for key, one in config.items() if key != "compile_config"}
    return [_uncompiled(one) for one in config] if isinstance(config, list) else config


def _load(file: Path, path: Path, weights_bytes: int | None) -> KerasModel:
    """Load a checked file with Keras; errors name `path`."""
    keras = import_keras()
    limited = (
        contextlib.nullcontext()
        if weights_bytes is None
        else limited_weights(keras, weights_bytes // 2 + MAX_EXTRA_WEIGHTS)
    )
    try:
        with quiet_stderr(), preserve_random_state(), limited:
            model: KerasModel = keras.saving.load_model(file, compile=False, safe_mode=True)
        check_outputs(model)
    except Exception as error:  # Keras raises many kinds
        raise _refusal(path, error) from error
    return model


@contextlib.contextmanager
def limited_weights(keras: Any, most: int) -> Iterator[None]:
    """Refuse a variable before it is allocated, once this thread made `most` values.

    A configuration of some bytes can ask for a layer of terabytes: Keras makes all weights
    before it reads any, and only then notices that the file has others. Layers make variables
    for their state too. Other threads build their own models as before.
    """
    thread, count = threading.get_ident(), 0

    def counted(
        variable: Any, initializer: Any, shape: Any = None, *args: Any, **options: Any
    ) -> None:
        nonlocal count
        if threading.get_ident() == thread:
            count += _values_of_variable(initializer, shape)
            if count > most:
                raise ValueError(
                    f"its layers have more than {most:,} weights, but the file does not"
                )
        initialize(variable, initializer, shape, *args, **options)

    with _PATCHING:
        base = _base_of_variables(keras)
        # Read inside the lock: outside it may be another thread's count.
        initialize = base.__init__
        base.__init__ = counted
        try:
            yield
        finally:
            base.__init__ = initialize


def _base_of_variables(keras: Any) -> Any:
    """Return the class whose ``__init__`` creates the variables of every backend."""
    module = "keras.src.backend.common.variables"
    found = [kind for kind in keras.Variable.__mro__ if kind.__module__ == module]
    if len(found) != 1 or "__init__" not in vars(found[0]):
        raise ValueError(f"the variables of Keras {keras.__version__} cannot be counted")
    return found[0]


def _values_of_variable(initializer: Any, shape: Any) -> int:
    if shape is None:
        shape = getattr(initializer, "shape", ())
    sides = (shape,) if isinstance(shape, int) else shape
    return math.prod(int(side or 1) for side in sides)


def check_outputs(model: Any) -> None:
    """Raise ValueError if the output of a layer for one image exceeds a limit."""
    loops = 0
    for layer in operations(model):
        loops += _loops(layer)
        if loops > _MAX_LOOPS:
            raise ValueError(f"its layer {layer.name!r} loops {loops:,} times")
        for node in getattr(layer, "_inbound_nodes", ()):
            for tensor in node.output_tensors:
                if _values(tensor) > _MAX_OUTPUTS:
                    raise ValueError(
                        f"its layer {layer.name!r} gives {tensor.shape} values for an image; the "
                        f"limit is {_MAX_OUTPUTS:,}"
                    )
            if "Attention" in type(layer).__name__ and _scores(layer, node) > _MAX_OUTPUTS:
                raise ValueError(f"its layer {layer.name!r} compares too many values for an image")


def _sides(tensor: Any) -> list[int]:
    return [_ASSUMED_SIDE if side is None else side for side in tensor.shape[1:]]


def _values(tensor: Any) -> int:
    # A constant can give an output several rows for an image.
    rows = tensor.shape[0] if len(tensor.shape) else 1
    return math.prod(_sides(tensor)) * (rows or 1)


def _scores(layer: Any, node: Any) -> int:
    """Return the number of scores of attention, each position with each other."""
    sizes = [_sides(tensor) for tensor in node.input_tensors]
    if type(layer).__name__ == "AdditiveAttention":  # which keeps the channels
        return max(map(math.prod, sizes)) * max(side[0] for side in sizes)
    heads = [getattr(layer, name, 1) for name in ("num_heads", "_num_heads", "num_query_heads")]
    places = [math.prod(side[:-1]) for side in sizes]
    return places[0] * max(places) * max(int(head or 1) for head in heads)


def _loops(layer: Any) -> int:
    """Count the copies of a layer that Keras writes into its graph, one for each time step.

    Only the calls tell of the steps: the shapes that a layer was built for are the file's word.
    """
    inner = layer._flatten_layers(False) if hasattr(layer, "_flatten_layers") else ()
    repeats = type(layer).__name__ == "TimeDistributed"
    if repeats and any(map(_is_loop, inner)):
        raise ValueError(f"its layer {layer.name!r} loops over a layer that loops")
    if not _is_loop(layer) and not getattr(layer, "forward_layer", None):
        return 0
    if not any(map(_is_loop, (layer, *inner))):
        return 0
    shapes = [node.input_tensors[0].shape for node in layer._inbound_nodes]
    return sum(shape[1] or 0 for shape in shapes)


def _is_loop(layer: Any) -> bool:
    return type(layer).__name__ == "TimeDistributed" or bool(getattr(layer, "unroll", False))


def _records(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for member in value.values():
            yield from _records(member)
    elif isinstance(value, list):
        for member in value:
            yield from _records(member)


def _kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(layer["class_name"]) for layer in config["config"].get("layers", ())[:6])


def _input_size(config: Mapping[str, Any]) -> tuple[int, int] | None:
    for record in _records(config):
        if record["class_name"] == "InputLayer":
            shape: Any = record["config"].get("batch_shape") or ()
            sides = [side for side in shape[1:3] if type(side) is int]
            return (sides[0], sides[1]) if len(shape) == 4 and len(sides) == 2 else None
    return None


def _refusal(path: Path, error: BaseException) -> ModelRefused:
    reason = first_line(error, 300)
    return ModelRefused(
        f"The model {path} is not loaded: {reason}. Only models built from Keras' own layers can "
        "be loaded from a file; load other models with keras.saving.load_model and pass the model.",
        path=path,
        reason=reason,
    )
