"""The file format of bundles: a zip archive of JSON, Markdown and NumPy arrays, all checked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.atomic import make_folder, write_atomic
from .._io.paths import absolute_path
from .._io.stored_zip import check_regular_file, check_stored
from .._io.wording import first_line
from ..backbones.spec import BackboneSpec
from ..errors import BundleError, FeatcacheError
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE
from ..printable import printable
from .classifier import STEPS, Classifier, ClassifierStep

FORMAT = "featcache-bundle"
VERSION = 1
_HEAD = "bundle.json"
_CARD = "model_card.md"
_MAX_BYTES = 2 * 2**30
_MAX_HEAD_BYTES = 16 * 2**20
_MAX_STEPS = 16
_MAX_IMAGE_PIXELS = 2048 * 2048  # a network needs about a hundred bytes for each
# The data types that a file may hold, by their names in NumPy.
_KINDS = {"float32": np.float32, "float64": np.float64, "int32": np.int32, "int64": np.int64}
_CLASS_TYPES = {str, int, bool, float}
_ARGUMENTS: dict[str, tuple[type, ...]] = {
    "backbone": (str,),
    "layer": (str, int, type(None)),
    "pooling": (str, type(None)),
    "image_size": (list,),
    "resize": (str,),
    "weights": (str, type(None)),
    "preprocessing": (str, type(None)),  # None for a function
    "precision": (str,),
    "row_dtype": (str,),
}
_MAX_ARGUMENT_CHARACTERS = 4096


def write_bundle(
    path: str | os.PathLike[str], classifier: Classifier, record: Mapping[str, Any], card: str
) -> None:
    """Write a classifier, the record of its bundle and the model card to one file.

    Raises
    ------
    BundleError
        If `read_bundle` would refuse the file; nothing is written then.
    StoreWriteError
        If the write fails.
    """
    arrays: dict[str, bytes] = {}
    steps = []
    for number, step in enumerate(classifier.steps):
        described = {}
        for name, array in step.arrays.items():
            data = _encode_array(array)
            member = f"arrays/{number}-{name}.npy"
            arrays[member] = data
            described[name] = {"file": member, "sha256": hashlib.sha256(data).hexdigest()}
        steps.append({"kind": step.kind, "arrays": described})
    head = {
        "format": FORMAT,
        "format_version": VERSION,
        **record,
        "classes": [_plain_class(name) for name in classifier.classes],
        "width": classifier.width,
        "temperature": classifier.temperature,
        "steps": steps,
    }
    encoded = json.dumps(head, indent=1).encode()
    target = absolute_path(path)
    _check_readable(encoded, target)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        members = {
            _HEAD: encoded,
            _CARD: printable(card, keep="\n").encode(),
            **arrays,
        }
        for name, data in members.items():
            # A fixed date, so that the same bundle gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    make_folder(target.parent)
    write_atomic(target, out.getvalue(), description="a bundle")


def _check_readable(head: bytes, path: Path) -> None:
    """Raise `BundleError` if `read_bundle` would refuse the head of a bundle."""
    try:
        if len(head) > _MAX_HEAD_BYTES:
            raise ValueError(f"{_HEAD} would have more than {_MAX_HEAD_BYTES:,} bytes")
        _record(json.loads(head))
    except (ValueError, KeyError, TypeError, FeatcacheError) as error:
        raise BundleError(
            f"{path} is not written, since `load_bundle` would refuse it: "
            f"{first_line(error, 200)}. Make the bundle from features within this limit.",
            path=path,
        ) from error


def read_bundle(path: str | os.PathLike[str]) -> tuple[Classifier, dict[str, Any]]:
    """Read a file of `write_bundle`; return the classifier and the record of the bundle.

    Raises
    ------
    BundleError
        If it is any other file; the message says what is wrong.
    """
    path = absolute_path(path)
    try:
        check_regular_file(path)
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES:,} bytes")
        with zipfile.ZipFile(path) as archive:
            check_stored(archive, path, {_HEAD, _CARD})
            if archive.getinfo(_HEAD).file_size > _MAX_HEAD_BYTES:
                raise ValueError(f"{_HEAD} has more than {_MAX_HEAD_BYTES:,} bytes")
            head = json.loads(archive.read(_HEAD))
            _check_version(head, path)
            return _classifier(archive, head), _record(head)
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BundleError(f"There is no bundle {path}.", path=path) from error
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, EOFError,
        NotImplementedError, RuntimeError, MemoryError, OverflowError, zipfile.BadZipFile,
        zlib.error, FeatcacheError,
    ) as error:  # fmt: skip
        raise BundleError(
            f"{path} is not a valid bundle of featcache ({first_line(error, 200)}). Nothing of "
            "it was used; copy it again from its source.",
            path=path,
        ) from error


def _check_version(head: Any, path: Path) -> None:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(f"{_HEAD} does not have the format {FORMAT!r}")
    if head["format_version"] != VERSION:
        raise BundleError(
            f"{path} is a bundle of format {head['format_version']!r}; this version of featcache "
            f"reads format {VERSION}. Upgrade featcache.",
            path=path,
            received=head["format_version"],
        )


def _classifier(archive: zipfile.ZipFile, head: dict[str, Any]) -> Classifier:
    classes, described = head["classes"], head["steps"]
    _check_classes(classes)
    if len(described) > _MAX_STEPS:
        raise ValueError(f"it has more than {_MAX_STEPS} steps")
    steps, used = [], {_HEAD, _CARD}
    for one in described:
        arrays = {}
        for name in STEPS[one["kind"]]:
            member = one["arrays"][name]["file"]
            if member in used:  # read again, it would take its memory again
                raise ValueError(f"more than one array is {member!r}")
            used.add(member)
            arrays[name] = _decode_array(archive.read(member), one["arrays"][name]["sha256"])
        steps.append(ClassifierStep(one["kind"], arrays))
    extra = set(archive.namelist()) - used
    if extra:
        raise ValueError(f"it holds {sorted(extra)[0]!r}, which no step uses")
    width, temperature = head["width"], head["temperature"]
    if type(width) is not int or type(temperature) not in (int, float):
        raise ValueError("width or temperature is not a number")
    return Classifier(steps, classes, width, float(temperature))


def _plain_class(name: Any) -> Any:
    """Return a class as a type that JSON keeps: str, int, bool or float."""
    name = name.item() if isinstance(name, np.generic) else name
    if type(name) not in _CLASS_TYPES or name != name:
        raise BundleError(
            f"A bundle cannot hold the class {name!r} ({type(name).__name__}); classes are str, "
            "int, bool or float.",
            received=name,
        )
    return name


def _check_classes(classes: Any) -> None:
    kinds = {type(name) for name in classes}
    distinct = isinstance(classes, list) and len(set(classes)) == len(classes)
    if not distinct or len(kinds) > 1 or not kinds <= _CLASS_TYPES:
        raise ValueError("its classes are not distinct values of one type")


def _record(head: dict[str, Any]) -> dict[str, Any]:
    record = {name: head[name] for name in ("spec", "arguments", "metrics", "about")}
    if not all(isinstance(value, dict) for value in record.values()):
        raise ValueError(f"an entry of {_HEAD} is not an object")
    record["arguments"].setdefault("precision", "float32")  # not in older bundles
    record["arguments"].setdefault("row_dtype", DEFAULT_ROW_DTYPE)
    _check_arguments(record["arguments"])
    if not all(type(value) in (int, float) for value in record["metrics"].values()):
        raise ValueError("a metric is not a number")
    record["metrics"] = {name: float(value) for name, value in record["metrics"].items()}
    record["spec"] = BackboneSpec.from_components(record["spec"])
    record["metadata"] = record.pop("about")
    return record


def _check_arguments(arguments: dict[str, Any]) -> None:
    if set(arguments) != set(_ARGUMENTS):
        raise ValueError("its arguments are not those of an extraction")
    for name, value in arguments.items():
        kinds = _ARGUMENTS[name]
        if type(value) not in kinds:
            expected = " or ".join(
                "null" if kind is type(None) else kind.__name__ for kind in kinds
            )
            raise ValueError(f"its argument {name} is a {type(value).__name__}, not {expected}")
        if isinstance(value, str) and len(value) > _MAX_ARGUMENT_CHARACTERS:
            raise ValueError(f"its argument {name} has {len(value):,} characters")
    if [type(side) for side in arguments["image_size"]] != [int, int]:
        raise ValueError("its argument image_size is not a list of two integers")
    height, width = arguments["image_size"]
    if height * width > _MAX_IMAGE_PIXELS:
        raise ValueError(
            f"its argument image_size is {height:,} x {width:,}; the limit is "
            f"{_MAX_IMAGE_PIXELS:,} pixels"
        )


def _encode_array(array: NDArray[Any]) -> bytes:
    kind = np.dtype(array.dtype).name
    if kind not in _KINDS:
        raise TypeError(f"a bundle cannot hold an array of {array.dtype}")
    out = io.BytesIO()
    little = np.ascontiguousarray(array, np.dtype(_KINDS[kind]).newbyteorder("<"))
    np.lib.format.write_array(out, little, version=(1, 0), allow_pickle=False)
    return out.getvalue()


def _decode_array(data: bytes, digest: str) -> NDArray[Any]:
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError("the bytes of an array are not those that were written")
    source = io.BytesIO(data)
    if np.lib.format.read_magic(source) != (1, 0):
        raise ValueError("an array has an unknown header")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(source)
    count = int(np.prod(shape, dtype=object))
    n_bytes = len(data) - source.tell()
    if dtype.name not in _KINDS or fortran or count < 0 or count * dtype.itemsize != n_bytes:
        raise ValueError("an array's declared shape does not fit its bytes")
    return np.frombuffer(data, dtype, count, source.tell()).reshape(shape)
