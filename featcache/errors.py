"""Exceptions of featcache.

Every error is a `FeatcacheError`; most are also a matching builtin exception (`ValueError`,
`OSError` ...). The values behind a message are attributes, so that a program never has to parse
the text:

>>> error = UnknownBackbone("no backbone 'vgg91'", received="vgg91", near=["vgg19"])
>>> isinstance(error, ValueError), error.near
(True, ['vgg19'])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any, Protocol

from .printable import printable

_Path = str | PathLike[str]


class QuarantinedImage(Protocol):
    """An image that could not be used: `featcache.extraction.summary.Quarantined`."""

    @property
    def path(self) -> str:
        """As the data set lists it."""
        ...

    @property
    def reason(self) -> str:
        """What is wrong with the file."""
        ...

    @property
    def position(self) -> int:
        """Row of the data set."""
        ...


@dataclass(eq=False, repr=False)
class FeatcacheError(Exception):
    """Base of all errors raised on purpose by this project.

    Parameters
    ----------
    message : str
        What was received, what was expected, what to do.
    """

    message: str

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        # Messages name files and labels, whose control characters must not reach a terminal.
        return printable(self.message, keep="\n\t")

    def __reduce__(self) -> tuple[Any, ...]:
        # Parallel searches pickle exceptions: the default would drop the values, and that of
        # OSError would take the message for an error number.
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})


def _rebuild(kind: type[FeatcacheError], values: Mapping[str, Any]) -> FeatcacheError:
    return kind(**values)


@dataclass(eq=False, repr=False, kw_only=True)
class InvalidRequest(FeatcacheError, ValueError):
    """An argument has a value that the function does not accept."""

    received: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class UnknownBackbone(InvalidRequest):
    """The backbone's name is not in the table; carries `received` and `near`."""

    near: Sequence[str] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class UnknownLayer(InvalidRequest):
    """The backbone has no layer of that name; carries `received` and `layers`."""

    layers: Sequence[str] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class NoFiniteRow(InvalidRequest):
    """The model gave no row that can be stored for any of `images` valid images."""

    images: int = 0


@dataclass(eq=False, repr=False, kw_only=True)
class UnreadableObject(InvalidRequest):
    """Code refers to an object whose values cannot be read; carries its type and `reason`."""

    reason: str


class NotExportable(InvalidRequest):
    """A bundle cannot be written as a network for other programs; carries `received`."""


@dataclass(eq=False, repr=False, kw_only=True)
class WrongClassOrder(InvalidRequest):
    """A head's integer classes are codes of another order; `fitting` maps them to labels."""

    fitting: Mapping[int, object]


@dataclass(eq=False, repr=False, kw_only=True)
class DatasetError(FeatcacheError, ValueError):
    """A data set's layout, table or labels cannot be used as they are."""

    path: _Path | None = None
    row: int | None = None
    received: object = None
    expected: object = None


class DatasetNotFound(DatasetError, FileNotFoundError):
    """The given folder, file or column does not exist."""


@dataclass(eq=False, repr=False, kw_only=True)
class ConflictingLabels(DatasetError):
    """One content has several labels; carries `conflicts`, as `label_conflicts` gives them."""

    conflicts: Sequence[Mapping[str, Any]]


@dataclass(eq=False, repr=False, kw_only=True)
class NoUsableImages(DatasetError):
    """Every image of a data set is quarantined; carries `quarantined`."""

    quarantined: Sequence[QuarantinedImage] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class UnusableImages(DatasetError):
    """Some images cannot be used where each needs a row; carries `quarantined`."""

    quarantined: Sequence[QuarantinedImage] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class UnsafeArchive(DatasetError):
    """An archive has a member outside the target folder, or too large; carries `member`."""

    member: str | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class DownloadFailed(FeatcacheError, OSError):
    """A file could not be downloaded; carries `url` and `reason`."""

    url: str
    reason: str


@dataclass(eq=False, repr=False, kw_only=True)
class WeightsUnavailable(FeatcacheError, OSError):
    """Pretrained weights are not on disk and cannot be downloaded; carries `file`, `url`."""

    file: _Path
    url: str | None = None
    reason: str | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class WeightsMismatch(FeatcacheError, ValueError):
    """A weights file does not fit the backbone, or is not the file it claims to be."""

    file: _Path | None = None
    received: object = None
    expected: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class ModelRefused(FeatcacheError, ValueError):
    """A saved model is not loaded; carries `path` and usually `reason`."""

    path: _Path
    reason: str | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class StoreError(FeatcacheError):
    """Base of the errors of a store; carries `path`."""

    path: _Path | None = None
    reason: str | None = None
    system_errno: int | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class UnknownStore(StoreError):
    """No store, or more than one, has such a name; carries the `candidates`."""

    candidates: Sequence[str] = ()


class StoreCorrupt(StoreError, ValueError):
    """Bytes on disk are not those that were committed, or not written by featcache."""


@dataclass(eq=False, repr=False, kw_only=True)
class StoreFormatError(StoreError, ValueError):
    """A store was written in a format that this version does not read."""

    version: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class StoreMismatch(StoreError, ValueError):
    """Rows belong to another spec than the store's; carries `stored`, `requested`."""

    stored: object = None
    requested: object = None


class StoreWriteError(StoreError, OSError):
    """The system refused a write; rows committed before are intact."""


class LeaseLost(StoreError):
    """Another process took over the lease of a store while this process was suspended."""


@dataclass(eq=False, repr=False, kw_only=True)
class InspectionError(FeatcacheError):
    """The process that inspects HDF5 files cannot be started or reached; no file is at fault."""

    status: int | None = None
    reason: str | None = None


@dataclass(eq=False, repr=False, kw_only=True)
class MissingRows(StoreError, KeyError):
    """Rows were requested that the store does not contain; carries `ids`."""

    ids: Sequence[str] = ()


@dataclass(eq=False, repr=False, kw_only=True)
class EngineUnavailable(FeatcacheError):
    """The requested engine cannot run the backbone on this machine."""

    received: str


@dataclass(eq=False, repr=False, kw_only=True)
class OutOfMemory(FeatcacheError, MemoryError):
    """The memory is insufficient even for a batch of one image."""

    engine: str


@dataclass(eq=False, repr=False, kw_only=True)
class DeviceError(FeatcacheError):
    """One of several devices failed; carries its name in `device`. Committed rows are kept."""

    device: str


@dataclass(eq=False, repr=False, kw_only=True)
class ClusterError(FeatcacheError):
    """A cluster could not compute all images; carries `worker`, `reason` and paths of `images`.

    Committed rows are kept, and the same call computes the others.
    """

    worker: str | None = None
    reason: str | None = None
    images: Sequence[str] = ()


class WorkerRefused(ClusterError):
    """A worker would compute other rows than the client asks for, or store them elsewhere."""


@dataclass(eq=False, repr=False, kw_only=True)
class BundleError(FeatcacheError, ValueError):
    """A file is not a valid bundle; carries `path`."""

    path: _Path | None = None
    received: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class BundleMismatch(BundleError):
    """Features have another key than those a bundle was trained on; carries `differing`."""

    differing: Sequence[str] = ()
    stored: object = None
    requested: object = None


@dataclass(eq=False, repr=False, kw_only=True)
class MissingExtra(FeatcacheError, ImportError):
    """An optional package is needed; the message names the extra to install."""

    package: str | None


class RandomWeightsWarning(UserWarning):
    """A backbone runs with seeded random weights because no trained ones are available."""
