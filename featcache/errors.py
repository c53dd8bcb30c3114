"""The errors of featcache: one tree, each carrying the evidence it was raised on.

Every error is a `FeatcacheError`; most are also the builtin exception that people
already catch (`ValueError`, `OSError` ...). The facts behind a message are attributes,
so that a program never has to parse the text:

>>> error = UnknownBackbone("no backbone 'vgg91'", received="vgg91", near=["vgg19"])
>>> isinstance(error, ValueError), error.near
(True, ['vgg19'])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .printable import printable


class FeatcacheError(Exception):
    """Base of all errors raised on purpose by this project.

    Parameters
    ----------
    message : str
        What was received, what was expected, what to do.
    **evidence
        The facts behind the message; each becomes an attribute and an entry of `evidence`.
    """

    def __init__(self, message: str, **evidence: Any) -> None:
        super().__init__(message)
        self.evidence = evidence
        for name, value in evidence.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # Messages name files and labels: what those hold must not steer a terminal.
        return printable(self.args[0], keep="\n\t")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders in parallel searches; the default would drop
        # the evidence and OSError's would mistake the message for an error number.
        return _rebuild, (type(self), self.args[0], self.evidence)

    if TYPE_CHECKING:  # the evidence's names are known only to who raises the error

        def __getattr__(self, name: str) -> Any: ...


def _rebuild(kind: type[FeatcacheError], message: str, evidence: dict[str, Any]) -> FeatcacheError:
    return kind(message, **evidence)


class InvalidRequest(FeatcacheError, ValueError):
    """An argument has a value that the function does not accept."""


class UnknownBackbone(InvalidRequest):
    """The backbone's name is not in the table; carries `received` and `near`."""


class UnknownLayer(InvalidRequest):
    """The backbone has no layer of that name; carries `received` and `layers`."""


class DatasetError(FeatcacheError, ValueError):
    """A data set's layout, table or labels cannot be used as they are."""


class DatasetNotFound(DatasetError, FileNotFoundError):
    """The folder, file or column that was named is not there."""


class NoUsableImages(DatasetError):
    """Every image of a data set is quarantined; carries `quarantined`."""


class UnsafeArchive(DatasetError):
    """An archive wants to write where it may not, or more than it may; carries `member`."""


class DownloadFailed(FeatcacheError, OSError):
    """A file could not be had from the internet; carries `url` and `reason`."""


class WeightsUnavailable(FeatcacheError, OSError):
    """Pretrained weights are neither on disk nor to be downloaded; carries `file`, `url`."""


class WeightsMismatch(FeatcacheError, ValueError):
    """A weights file does not fit the backbone, or is not the file it claims to be."""


class ModelRefused(FeatcacheError, ValueError):
    """A saved model is not loaded; carries `path` and, mostly, `reason`."""


class StoreError(FeatcacheError):
    """Base of the errors of a store; carries `path`."""


class StoreCorrupt(StoreError, ValueError):
    """Bytes on disk are not those that were committed, or were never ours."""


class StoreFormatError(StoreError, ValueError):
    """A store was written in a format that this version does not read."""


class StoreMismatch(StoreError, ValueError):
    """Rows of one specification met a store of another; carries `stored`, `requested`."""


class StoreWriteError(StoreError, OSError):
    """The system refused a write; nothing committed before is touched."""


class LeaseLost(StoreError):
    """Another process took a store over while this one did not run."""


class InspectionError(FeatcacheError):
    """The process that inspects HDF5 files cannot be started or reached; no file is at fault."""


class MissingRows(StoreError, KeyError):
    """A store was asked for rows that it does not hold; carries `ids`."""


class EngineUnavailable(FeatcacheError):
    """The engine that was asked for cannot run the backbone here."""


class OutOfMemory(FeatcacheError, MemoryError):
    """Not even one image at a time fits the memory."""


class BundleError(FeatcacheError, ValueError):
    """A file is not a sound bundle; carries `path`."""


class BundleMismatch(BundleError):
    """Features are not of the key that a bundle was trained on; carries `differing`."""


class MissingExtra(FeatcacheError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class RandomWeightsWarning(UserWarning):
    """A backbone runs with seeded random weights because no trained ones could be had."""
