"""Saved Keras models from elsewhere: looked at without Keras, loaded only if nothing in them runs.

A ``.keras`` file is a zip archive with the network as JSON and its weights as HDF5. Keras'
safe mode refuses code in it; which classes and functions the JSON may name is left open by
that, and has let files run code, or read others, more than once (CVE-2025-1550,
CVE-2025-8747, CVE-2025-12058). So only layers of Keras itself that compute are let in.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ModelRefused
from .hdf5 import foreign_reason
from .keras_door import import_keras, quiet_stderr
from .storedzip import check_stored

ENDING = ".keras"
OLD_ENDINGS = (".h5", ".hdf5")
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = {_CONFIG, _WEIGHTS, "metadata.json"}
_MOST_CONFIG_BYTES = 64 * 2**20
_MODULES = {
    "keras", "keras.constraints", "keras.dtype_policies", "keras.initializers", "keras.layers",
    "keras.losses", "keras.metrics", "keras.models", "keras.optimizers", "keras.regularizers",
}  # fmt: skip
_MODULES_BELOW = ("keras.src.applications.", "keras.src.models.", "keras.src.ops.")
# What runs code of the file's, or reads further files.
_BARRED = {
    "FeatureSpace", "FlaxLayer", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup",
    "TFSMLayer", "TextVectorization", "TorchModuleWrapper", "__lambda__", "__typespec__",
}  # fmt: skip


@dataclass(frozen=True)
class ModelFile:
    """A ``.keras`` file in which nothing odd was found.

    Attributes
    ----------
    path : Path
        Absolute.
    kinds : tuple of str
        Classes of the network's first layers.
    input_size : (int, int) or None
        Height and width of its input, if they are fixed.
    """

    path: Path
    kinds: tuple[str, ...]
    input_size: tuple[int, int] | None

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def is_model_file(backbone: Any) -> bool:
    """Tell whether what stands for a backbone is the path of a saved model."""
    if not isinstance(backbone, (str, os.PathLike)):
        return False
    return os.fspath(backbone).lower().endswith((ENDING, *OLD_ENDINGS))


def look_at_model(path: str | os.PathLike[str]) -> ModelFile:
    """Check a ``.keras`` file, without Keras.

    Raises
    ------
    ModelRefused
        If it is not there, is not such a file, or could do more than compute.
    """
    path = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    if path.name.lower().endswith(OLD_ENDINGS):
        raise ModelRefused(
            f"{path} is a model in Keras' old format, which can carry code that runs as it is "
            "loaded. If you trust whoever made it: featcache.load_model(path, allow_h5=True), or "
            "--allow-h5. Saved anew with model.save('name.keras') it needs no such trust.",
            path=path,
        )
    try:
        with zipfile.ZipFile(path) as archive:
            check_stored(archive, path, {_CONFIG, _WEIGHTS})
            odd = sorted(set(archive.namelist()) - _MEMBERS)
            if odd:
                raise ValueError(f"it holds {odd[0]!r}, which a network has no use for")
            if archive.getinfo(_CONFIG).file_size > _MOST_CONFIG_BYTES:
                raise ValueError(f"{_CONFIG} is too long")
            config = json.loads(archive.read(_CONFIG))
            _check(config)
            with archive.open(_WEIGHTS) as weights:
                reason = foreign_reason(weights)
            if reason is not None:
                raise ValueError(f"of its weights, {reason}")
            return ModelFile(path, _kinds(config), _input_size(config))
    except FileNotFoundError as error:
        raise ModelRefused(f"There is no model file {path}.", path=path) from error
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
        NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise _refusal(path, error) from error


def load_model(path: str | os.PathLike[str], *, allow_h5: bool = False) -> Any:
    """Load a saved model as a backbone, without running anything that came with it.

    Parameters
    ----------
    path : path
        A ``.keras`` file. It may hold Keras' own layers only; a model with layers of your
        own is loaded by ``keras.saving.load_model`` and passed as it is.
    allow_h5 : bool
        Take a whole model in the old format, ``.h5``, as well: for files that you trust.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    ModelRefused
        With the reason.
    """
    path = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    if allow_h5 and path.name.lower().endswith(OLD_ENDINGS):
        if not path.is_file():
            raise ModelRefused(f"There is no model file {path}.", path=path)
        reason = foreign_reason(path)
        if reason is not None:
            raise _refusal(path, ValueError(reason))
    else:
        look_at_model(path)
    keras = import_keras()
    try:
        with quiet_stderr():
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds
        raise _refusal(path, error) from error


def _check(config: Any) -> None:
    """Raise ValueError for what a network needs not name."""
    if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
        raise ValueError("it does not describe a network")
    # Left out by Keras too, since the model is not compiled when it is loaded.
    for record in _records({**config, "compile_config": None}):
        kind, module = record["class_name"], record.get("module")
        if kind in ("__keras_tensor__", "__numpy__", "__tensor__"):
            continue
        own = module in _MODULES or str(module).startswith(_MODULES_BELOW)
        if not own or kind in _BARRED or record.get("registered_name") not in (None, kind):
            named = f"{module}.{kind}" if module else str(kind)
            raise ValueError(f"it names {named!r}, which is no plain layer of Keras")


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
    reason = str(error).split("\n")[0].rstrip(". ")[:300] or type(error).__name__
    return ModelRefused(
        f"The model {path} is not loaded: {reason}. Of a file only a network of Keras' own layers "
        "and its weights are taken; load any other yourself, with keras.saving.load_model, and "
        "pass the model.",
        path=path,
        reason=reason,
    )
