"""Exceptions of featcache.

Every error is a `FeatcacheError`; most are also a matching builtin exception (`ValueError`,
`OSError` ...). The values behind a message are attributes, so that a program never has to parse
the text:

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
        The values behind the message; each becomes an attribute and an entry of `evidence`.
    """

    def __init__(self, message: str, **evidence: Any) -> None:
        super().__init__(message)
        self.evidence = evidence
        for name, value in evidence.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        # Messages name files and labels, whose control characters must not reach a terminal.
        return printable(self.args[0], keep="\n\t")

    def __reduce__(self) -> tuple[Any, ...]:
        # Parallel searches pickle exceptions: the default would drop the evidence, and that of
        # OSError would take the message for an error number.
        return _rebuild, (type(self), self.args[0], self.evidence)

    if TYPE_CHECKING:  # the names of the evidence differ from error to error

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
    """The given folder, file or column does not exist."""


class NoUsableImages(DatasetError):
    """Every image of a data set is quarantined; carries `quarantined`."""


class UnsafeArchive(DatasetError):
    """An archive has a member outside the target folder, or too large; carries `member`."""


class DownloadFailed(FeatcacheError, OSError):
    """A file could not be downloaded; carries `url` and `reason`."""


class WeightsUnavailable(FeatcacheError, OSError):
    """Pretrained weights are not on disk and cannot be downloaded; carries `file`, `url`."""


class WeightsMismatch(FeatcacheError, ValueError):
    """A weights file does not fit the backbone, or is not the file it claims to be."""


class ModelRefused(FeatcacheError, ValueError):
    """A saved model is not loaded; carries `path` and usually `reason`."""


class StoreError(FeatcacheError):
    """Base of the errors of a store; carries `path`."""


class StoreCorrupt(StoreError, ValueError):
    """Bytes on disk are not those that were committed, or not written by featcache."""


class StoreFormatError(StoreError, ValueError):
    """A store was written in a format that this version does not read."""


class StoreMismatch(StoreError, ValueError):
    """Rows belong to another spec than the store's; carries `stored`, `requested`."""


class StoreWriteError(StoreError, OSError):
    """The system refused a write; rows committed before are intact."""


class LeaseLost(StoreError):
    """Another process took over the lease of a store while this process was suspended."""


class InspectionError(FeatcacheError):
    """The process that inspects HDF5 files cannot be started or reached; no file is at fault."""


class MissingRows(StoreError, KeyError):
    """Rows were requested that the store does not contain; carries `ids`."""


class EngineUnavailable(FeatcacheError):
    """The requested engine cannot run the backbone on this machine."""


class OutOfMemory(FeatcacheError, MemoryError):
    """The memory is insufficient even for a batch of one image."""


class BundleError(FeatcacheError, ValueError):
    """A file is not a valid bundle; carries `path`."""


class BundleMismatch(BundleError):
    """Features have another key than those a bundle was trained on; carries `differing`."""


class MissingExtra(FeatcacheError, ImportError):
    """An optional package is needed; the message names the extra to install."""


class RandomWeightsWarning(UserWarning):
    """A backbone runs with seeded random weights because no trained ones are available."""
