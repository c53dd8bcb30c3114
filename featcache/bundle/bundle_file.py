"""The file format of bundles: a zip archive of JSON, Markdown and NumPy arrays, all checked."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
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
from ..extraction.derived.spec import MAX_PARTS, DerivedSpec, FeatureSpec, join_arguments
from ..extraction.derived.spec import MAX_STEPS as MAX_TRANSFORMS
from ..extraction.derived.steps import ARRAYS, RowStep
from ..hdf5.row_dtype import DEFAULT_ROW_DTYPE
from ..printable import printable
from .classifier import STEPS, Classifier, ClassifierStep

FORMAT = "featcache-bundle"
VERSION = 1
# Of bundles of several backbones, or with steps on the embeddings: earlier versions of featcache,
# which would ignore them, refuse the file.
DERIVED_VERSION = 2
_HEAD = "bundle.json"
_CARD = "model_card.md"
_MAX_BYTES = 2 * 2**30
_MAX_HEAD_BYTES = 16 * 2**20
_MAX_STEPS = 16
_MAX_WIDTH = 2**31 - 1
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
    path: str | os.PathLike[str],
    classifier: Classifier,
    spec: FeatureSpec,
    arguments: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    card: str,
) -> None:
    """Write a classifier, the record of its bundle and the model card to one file.

    `arguments` are those of each backbone of `spec`. A bundle of one backbone without steps is
    written in the first version of the format.

    Raises
    ------
    BundleError
        If `read_bundle` would refuse the file; nothing is written then.
    StoreWriteError
        If the write fails.
    """
    arrays: dict[str, bytes] = {}
    steps = [
        {"kind": step.kind, "arrays": _described(step.arrays, f"arrays/{number}", arrays)}
        for number, step in enumerate(classifier.steps)
    ]
    head = {
        "format": FORMAT,
        **_described_features(spec, arguments, arrays),
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


def _described(
    own: Mapping[str, NDArray[Any]], prefix: str, arrays: dict[str, bytes]
) -> dict[str, Any]:
    """Describe the arrays of a step, and add them to the members of the file."""
    described = {}
    for name, array in own.items():
        data = _encode_array(array)
        member = f"{prefix}-{name}.npy"
        arrays[member] = data
        described[name] = {"file": member, "sha256": hashlib.sha256(data).hexdigest()}
    return described


def _described_features(
    spec: FeatureSpec, arguments: Sequence[Mapping[str, Any]], arrays: dict[str, bytes]
) -> dict[str, Any]:
    """Describe the embeddings that the classifier takes, and the version of the format."""
    if isinstance(spec, BackboneSpec):
        return {
            "format_version": VERSION, "spec": spec.components(), "arguments": dict(arguments[0]),
        }  # fmt: skip
    parts = [
        {"spec": part.components(), "arguments": dict(own), "width": width}
        for part, own, width in zip(spec.parts, arguments, spec.widths, strict=True)
    ]
    transforms = [
        {
            "name": step.name, "start": step.start, "width": step.width,
            "arrays": _described(step.arrays, f"transforms/{number}", arrays),
        }
        for number, step in enumerate(spec.steps)
    ]  # fmt: skip
    return {"format_version": DERIVED_VERSION, "parts": parts, "transforms": transforms}


def _check_readable(head: bytes, path: Path) -> None:
    """Raise `BundleError` if `read_bundle` would refuse the head of a bundle."""
    try:
        if len(head) > _MAX_HEAD_BYTES:
            raise ValueError(f"{_HEAD} would have more than {_MAX_HEAD_BYTES:,} bytes")
        loaded = json.loads(head)
        for part in _parts(loaded):
            _part(part)
        _record(loaded)
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
            members = _Members(archive)
            classifier, spec = _classifier(members, head), _spec(members, head)
            members.check_all_used()
            if isinstance(spec, DerivedSpec) and spec.width != classifier.width:
                raise ValueError(
                    f"its head takes {classifier.width} values, but its features have {spec.width}"
                )
            arguments = join_arguments([_part(part)[1] for part in _parts(head)])
            return classifier, {"spec": spec, "arguments": arguments, **_record(head)}
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
    if head["format_version"] not in (VERSION, DERIVED_VERSION):
        raise BundleError(
            f"{path} is a bundle of format {head['format_version']!r}; this version of featcache "
            f"reads the formats {VERSION} and {DERIVED_VERSION}. Upgrade featcache.",
            path=path,
            received=head["format_version"],
        )


class _Members:
    """The arrays of an archive; each is read once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive, self._used = archive, {_HEAD, _CARD}

    def arrays(self, described: Any, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a step by name."""
        found = {}
        for name in names:
            member = described[name]["file"]
            if member in self._used:  # read again, it would take its memory again
                raise ValueError(f"more than one array is {member!r}")
            self._used.add(member)
            data = self._archive.read(member)
            found[name] = _decode_array(data, described[name]["sha256"])
        return found

    def check_all_used(self) -> None:
        """Raise `ValueError` if the archive holds what no step uses."""
        extra = set(self._archive.namelist()) - self._used
        if extra:
            raise ValueError(f"it holds {sorted(extra)[0]!r}, which no step uses")


def _classifier(members: _Members, head: dict[str, Any]) -> Classifier:
    classes, described = head["classes"], head["steps"]
    _check_classes(classes)
    if len(described) > _MAX_STEPS:
        raise ValueError(f"it has more than {_MAX_STEPS} steps")
    steps = [
        ClassifierStep(one["kind"], members.arrays(one["arrays"], STEPS[one["kind"]]))
        for one in described
    ]
    width, temperature = head["width"], head["temperature"]
    if type(width) is not int or type(temperature) not in (int, float):
        raise ValueError("width or temperature is not a number")
    return Classifier(steps, classes, width, float(temperature))


def _parts(head: dict[str, Any]) -> list[Any]:
    """Return what the head of a bundle says of each backbone."""
    if head["format_version"] == VERSION:
        return [{"spec": head["spec"], "arguments": head["arguments"]}]
    parts = head["parts"]
    if not isinstance(parts, list) or not 1 <= len(parts) <= MAX_PARTS:
        raise ValueError(f"its parts are not a list of 1 to {MAX_PARTS}")
    return parts


def _part(part: Any) -> tuple[BackboneSpec, dict[str, Any]]:
    """Return the spec of a backbone, and its arguments of `extract`."""
    spec, arguments = part["spec"], part["arguments"]
    if not isinstance(spec, dict) or not isinstance(arguments, dict):
        raise ValueError(f"an entry of {_HEAD} is not an object")
    arguments.setdefault("precision", "float32")  # not in older bundles
    arguments.setdefault("row_dtype", DEFAULT_ROW_DTYPE)
    _check_arguments(arguments)
    return BackboneSpec.from_components(spec), arguments


def _spec(members: _Members, head: dict[str, Any]) -> FeatureSpec:
    """Return the spec of the embeddings that the classifier takes."""
    parts = _parts(head)
    specs = tuple(_part(part)[0] for part in parts)
    if head["format_version"] == VERSION:
        return specs[0]
    widths, described = [part["width"] for part in parts], head["transforms"]
    if any(type(width) is not int or not 1 <= width <= _MAX_WIDTH for width in widths):
        raise ValueError(f"the width of a part is not a whole number from 1 to {_MAX_WIDTH:,}")
    if not isinstance(described, list) or len(described) > MAX_TRANSFORMS:
        raise ValueError(f"its transforms are not a list of at most {MAX_TRANSFORMS}")
    steps = [
        RowStep(
            one["name"], one["start"], one["width"],
            members.arrays(one["arrays"], ARRAYS[one["name"]]),
        )
        for one in described
    ]  # fmt: skip
    return DerivedSpec(specs, tuple(widths), tuple(steps))


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
    """Return metrics and metadata."""
    metrics, about = head["metrics"], head["about"]
    if not isinstance(metrics, dict) or not isinstance(about, dict):
        raise ValueError(f"an entry of {_HEAD} is not an object")
    if not all(type(value) in (int, float) for value in metrics.values()):
        raise ValueError("a metric is not a number")
    numbers = {name: float(value) for name, value in metrics.items()}
    return {"metrics": numbers, "metadata": about}


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
