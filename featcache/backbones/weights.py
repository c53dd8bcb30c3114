"""Choice of the weights of a backbone and of their file, without Keras."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .._io.download import retrieve
from .._io.file_state import FileState, file_state, is_settled
from .._io.hashes import Algorithm, file_hash
from .._io.logs import get_logger
from .._io.paths import absolute_path
from ..errors import (
    DownloadFailed,
    InvalidRequest,
    RandomWeightsWarning,
    WeightsMismatch,
    WeightsUnavailable,
)
from .pocket import FILE as POCKET_FILE
from .spec import BackboneEntry

log = get_logger(__name__)

# Version of the rule by which `featcache.backbones.pretrained` makes random weights from a seed.
RANDOM_VERSION = 1
_SUFFIXES = (".weights.h5", ".h5")
_Word = Literal["auto", "imagenet", "imagenet-or-random", "random"]
_WORDS: tuple[_Word, ...] = get_args(_Word)
WeightsKind = Literal["imagenet", "packaged", "file", "random", "model", "imported"]
# Human-readable origin of the weights, which stores record.
_ORIGINS: dict[WeightsKind, str] = {
    "imagenet": "imagenet",
    "packaged": "the package's own, trained on drawn dogs",
    "model": "the model passed",
}
_SEEDED = re.compile(r"random:(\d{1,18})")

# One of `_Word`, ``"random:SEED"`` or a path; None means random, as in Keras.
WeightsLike = str | os.PathLike[str] | None


@dataclass(frozen=True)
class Weights:
    """Chosen weights of a backbone.

    Attributes
    ----------
    kind : WeightsKind
    path : Path or None
        File of the weights, or of the saved model. None for random weights, for a model in memory,
        and for an ImageNet file that is not on disk yet.
    seed : int
        Seed of random weights.
    or_random : bool
        Whether random weights are used if those of ImageNet are unavailable.
    top : bool
        Whether an ImageNet file includes the classification top.
    digest : str or None
        SHA-256 of the file, if its bytes were read already; it is not read again then.
    """

    kind: WeightsKind
    path: Path | None = None
    seed: int = 0
    or_random: bool = False
    top: bool = True
    digest: str | None = None

    @property
    def origin(self) -> str:
        """Description of the origin of the weights, which stores record for people."""
        if self.kind == "random":
            return f"random (seed {self.seed})"
        if self.kind == "model" and self.path is not None:
            return f"the model in {self.path}"
        return _ORIGINS.get(self.kind) or str(self.path)

    @property
    def argument(self) -> str:
        """The argument for which `choose_weights` returns these weights."""
        if self.kind == "random":
            return f"random:{self.seed}"
        return str(self.path) if self.kind == "file" else "auto"


def names_weights_file(weights: object) -> bool:
    """Return whether `choose_weights` treats its argument as the path of a file."""
    if weights is None or (isinstance(weights, str) and weights in _WORDS):
        return False
    return not isinstance(weights, str) or _SEEDED.fullmatch(weights) is None


def choose_weights(weights: WeightsLike, entry: BackboneEntry) -> Weights:
    """Return the weights for the argument ``weights=`` of `featcache.extract`.

    Parameters
    ----------
    weights : {"auto", "imagenet", "imagenet-or-random", "random", "random:SEED"}, path or None
        None means ``"random"``, as in Keras.

    Raises
    ------
    InvalidRequest, WeightsUnavailable
        If the word is unknown, or there is no file at the path.
    """
    if weights is None or weights == "random":
        return Weights("random")
    if entry.packaged and weights in ("auto", "imagenet-or-random"):
        return Weights("packaged", POCKET_FILE)
    if entry.packaged and weights == "imagenet":
        raise InvalidRequest(
            f"{entry.name} was not trained on ImageNet. Its weights are part of the package: omit "
            "weights=.",
            received=weights,
        )
    if isinstance(weights, str) and weights in ("auto", "imagenet", "imagenet-or-random"):
        fall_back = weights == "imagenet-or-random"
        return Weights("imagenet", imagenet_path(entry), or_random=fall_back)
    if isinstance(weights, str) and (match := _SEEDED.fullmatch(weights)):
        return Weights("random", seed=int(match[1]))
    if not isinstance(weights, (str, os.PathLike)):
        raise InvalidRequest(
            f"weights= can be 'auto', 'imagenet', 'random', 'random:SEED' or a path, not "
            f"{type(weights).__name__}. Pass a whole keras.Model in place of the backbone's name.",
            received=weights,
        )
    path = absolute_path(weights)
    if not path.is_file():
        raise WeightsUnavailable(
            f"There is no weights file {path}. weights= can be 'auto', 'imagenet', 'random', "
            "'random:SEED' or the path of a file made by model.save_weights().",
            file=path,
        )
    if not path.name.endswith((*_SUFFIXES, ".npz") if entry.packaged else _SUFFIXES):
        raise InvalidRequest(
            f"A weights file ends in .weights.h5 (Keras 3) or .h5 (older), not {path.name!r}. "
            "Load a whole saved model with keras.saving.load_model and pass it in place of the "
            "backbone's name.",
            received=str(path),
        )
    return _published(path, entry) or Weights("file", path)


def _published(path: Path, entry: BackboneEntry) -> Weights | None:
    """Return a file as ImageNet weights if it is one that Keras publishes for the backbone."""
    for top in (True, False):
        file, known = entry.published(top=top)
        # A published file of EfficientNet needs the second scaling, whatever its name is.
        may_be_published = path.name == file or entry.second_scaling
        if known and may_be_published and _file_hash(path, known) == known:
            return Weights("imagenet", path, top=top)
    return None


def keras_models_folder() -> Path:
    """Return the folder of the weights that Keras downloads."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def imagenet_path(entry: BackboneEntry) -> Path | None:
    """Return the ImageNet file of a backbone in the cache of Keras; None if it is missing."""
    path = keras_models_folder() / entry.file
    return path if path.is_file() else None


def weights_without_top(entry: BackboneEntry) -> Weights | None:
    """Return the ImageNet weights without the top in the cache of Keras; None if missing."""
    path = keras_models_folder() / str(entry.notop_file)
    return Weights("imagenet", path, top=False) if path.is_file() else None


def ensure_available(
    weights: Weights, entry: BackboneEntry, layer: str | int | None = None
) -> Weights:
    """Ensure that the weights file is on disk and has the right hash; return the weights to use.

    If the cache of Keras has only the file without the top, that is used for a `layer` that does
    not depend on the top. For other layers it is used if the file with the top cannot be
    downloaded.

    With `Weights.or_random`, seeded random weights replace unavailable ones, with a
    `RandomWeightsWarning`. This is meant for a trial run and is never the default for a user's
    data.

    Raises
    ------
    WeightsUnavailable
        Within about 10 seconds if the file is missing and cannot be downloaded.
    WeightsMismatch
        If the file in the cache of Keras is damaged.
    """
    if weights.kind == "packaged":
        file = POCKET_FILE
        if not file.is_file() or file_hash(file) != entry.hash:
            raise WeightsMismatch(
                f"{file} is not the file of the package. Install featcache again.",
                file=file,
                expected=entry.hash,
            )
        return weights
    if weights.kind != "imagenet":
        return weights
    without = None if weights.path else weights_without_top(entry)
    if without is not None:
        without = _checked(without, entry)  # reports a wrong file before anything is downloaded
        if not entry.needs_top(layer):
            return without
    try:
        path = weights.path or _download(entry)
    except WeightsUnavailable as error:
        if without is not None:
            return without
        if not weights.or_random:
            raise
        warnings.warn(
            f"{entry.name} runs with seeded random weights, since its ImageNet weights are "
            f"unavailable ({error.reason}). Its features are suitable for trying out the steps, "
            "not for evaluating a backbone.",
            RandomWeightsWarning,
            stacklevel=7,  # the caller of extract()
        )
        return Weights("random")
    return _checked(Weights("imagenet", path, top=weights.top), entry)


def _checked(weights: Weights, entry: BackboneEntry) -> Weights:
    """Return ImageNet weights after verifying the published hash of their file."""
    path, (_, known) = Path(str(weights.path)), entry.published(top=weights.top)
    if known and _file_hash(path, known) != known:
        raise WeightsMismatch(
            f"{path} is not the file that Keras publishes for {entry.name}: its hash is not "
            f"{known}. It may be an incomplete download: delete it and run again.",
            file=path,
            expected=known,
        )
    return weights


def identities(weights: Weights, entry: BackboneEntry | None) -> Iterator[list[Any]]:
    """Yield identities of the weights, under which their hash is cached, the cheapest first.

    A published file is identified by the hash that Keras publishes, which was verified. Another
    file is identified by its path and state, if the state shows every later change, and by its
    content, which is hashed only if the iteration gets there. A model in memory has no identity.
    """
    published = _published_identity(weights, entry)
    if published:
        yield published
    elif weights.digest is not None:
        yield ["content", weights.digest]
    elif weights.path is not None:
        state = file_state(os.stat(weights.path))
        if is_settled(state, time.time_ns()):
            yield ["file", str(weights.path), *state]
        yield ["content", file_hash(weights.path)]


def _published_identity(weights: Weights, entry: BackboneEntry | None) -> list[Any]:
    if weights.kind == "random":
        return ["random", RANDOM_VERSION, weights.seed]
    if weights.kind == "imagenet" and entry is not None:
        file, known = entry.published(top=weights.top)
        return ["imagenet", file, known] if known else []
    if weights.kind == "packaged" and entry is not None:
        return ["packaged", entry.file, entry.hash]
    return []


def current_state(weights: Weights) -> FileState | None:
    """Return the state of the file of the weights; None if there is none to be read."""
    is_read = weights.path is None or weights.digest is not None
    return None if is_read else file_state(os.stat(str(weights.path)))


def _file_hash(path: Path, known: str) -> str:
    """Return the hash of a file by the algorithm of a known hash."""
    return file_hash(path, "md5" if len(known) == 32 else "sha256")


def _download(entry: BackboneEntry) -> Path:
    log.info("downloading the ImageNet weights of %s", entry.name)
    kind: Algorithm = "md5" if entry.hash and len(entry.hash) == 32 else "sha256"  # Keras uses both
    known = f"{kind}:{entry.hash}" if entry.hash else None
    try:
        return retrieve(entry.url, known, entry.file, keras_models_folder())
    except DownloadFailed as error:
        raise WeightsUnavailable(
            f"The ImageNet weights of {entry.name} are not on this machine and cannot be "
            f"downloaded ({error.reason}). Get {entry.file}"
            + (f" (hash {entry.hash})" if entry.hash else "")
            + f" from {entry.url} on another machine and put it into {keras_models_folder()}, or "
            "pass weights=PATH, or weights='random' to try the steps without trained weights.",
            file=entry.file,
            url=entry.url,
            reason=error.reason,
        ) from error
