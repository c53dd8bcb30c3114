"""Recompute some images of a store, and compare the rows with the stored ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._io.cache_dirs import cache_folder, weights_folder
from ..backbones.keras_types import BackboneLike
from ..backbones.preprocessing import as_rule
from ..backbones.request import BackboneOptions, Request, make_request
from ..backbones.resolve import BuiltBackbone, build
from ..backbones.spec import BackboneSpec, differing
from ..backbones.weights import WeightsLike
from ..data.boxes import Crop
from ..data.content_ids import content_ids
from ..data.dataset import Dataset
from ..datasets.load import load_dataset
from ..errors import InvalidRequest, StoreMismatch
from ..images.image_file import BadImage, example_ids
from ..images.resize_rule import parse_resize
from ..images.views import View, parse_view
from ..store.place import open_location
from ..store.store import Store

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.3}
_ROUNDING = {"float32": 0.0, "float16": 5e-4}  # half a unit in the last place, 2**-11


@dataclass(frozen=True)
class SampleCheck:
    """Result of `verify_sample`.

    Attributes
    ----------
    images : int
        Number of images that were recomputed.
    largest : float
        Largest relative difference of a row: the largest absolute difference of its values,
        divided by the row's largest absolute value. Infinite if an image cannot be read.
    differing : list of (str, float)
        Path and relative difference of each row that differs by more than the tolerance.
    tolerance : float
        1e-4 in float32; 0.3 in bfloat16, which engines and processors round differently. 5e-4
        more if the stored rows are rounded to float16.
    """

    images: int
    largest: float
    differing: list[tuple[str, float]] = field(default_factory=list)
    tolerance: float = 1e-4

    def __str__(self) -> str:
        found = f"{self.images} images computed again; the largest relative difference is "
        return f"{found}{self.largest:.2g}" + (
            f", and {len(self.differing)} differ by more than {self.tolerance:g}"
            if self.differing
            else ""
        )


def verify_sample(
    folder: str | os.PathLike[str],
    data: object,
    count: int = 20,
    *,
    random_state: int = 0,
    crop: Crop | None = None,
    margin: float = 0.0,
    backbone: BackboneLike | None = None,
    weights: WeightsLike = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> SampleCheck:
    """Recompute a random sample of a store's images, and compare the rows.

    Parameters
    ----------
    folder : path or str
        Folder of the store; its URL in an object store.
    data : optional
        The images, in any form that `featcache.extract` accepts.
    count : int
        Size of the sample; at most, since all images that are stored may be fewer.
    random_state : int
        Seed of the sample.
    crop, margin
        As for `featcache.extract`.
    backbone : keras.Model, optional
        Needed if the store holds features of a model of your own.
    weights : optional
        Needed if the weights are a file that has moved since, or if the store does not record
        how to choose them.
    cache_dir : path, optional
        Default: ``FEATCACHE_CACHE`` or the user's cache folder.

    Returns
    -------
    SampleCheck

    Raises
    ------
    InvalidRequest
        If no image of the data is stored, `count` is below 1, or `backbone` or `weights`
        is needed.
    StoreMismatch
        If the backbone or its weights are no longer those of the store.
    """
    store = open_location(folder)
    dataset = load_dataset(data, crop=crop, margin=margin, cache_dir=cache_dir)
    contents = content_ids(dataset, cache_dir)
    stored = _stored_examples(store, example_ids(contents, dataset.boxes))
    if not stored or count < 1:
        raise InvalidRequest(
            f"{len(stored)} of the {len(dataset)} images are stored in {store.folder}, and "
            f"count={count}. A sample needs at least one stored image, and count=1 or more.",
            received=count,
        )
    cache = cache_folder(cache_dir)
    resolved = build(_make_request(store, dataset.crop, backbone, weights), weights_folder(cache))
    view = _view_of(store)
    changed = differing(store.spec, replace(resolved.spec, views=view.key))
    if changed:
        raise StoreMismatch(
            f"The backbone differs from that of {store.folder.name} in {', '.join(changed)}, so "
            "its rows cannot be verified. Pass the weights of the store (weights=, --weights), and "
            "a model of your own as backbone=.",
            stored=store.spec,
            requested=resolved.spec,
        )
    chosen = np.random.default_rng(random_state).permutation(len(stored))[:count]
    sample = [stored[int(i)] for i in np.sort(chosen)]
    errors = _errors_of(sample, store, resolved, view, dataset, contents)
    tolerance = TOLERANCES[store.spec.precision] + _ROUNDING[store.spec.row_dtype]
    bad = [(path, error) for path, error in errors.items() if not error <= tolerance]
    return SampleCheck(len(errors), max(errors.values()), bad, tolerance)


def _stored_examples(store: Store, examples: Sequence[str]) -> list[tuple[int, str]]:
    """Return position and example id of the images that the store holds."""
    pairs = [(i, image_id) for i, image_id in enumerate(examples) if image_id]
    mask = store.contains([image_id for _, image_id in pairs]) if pairs else np.zeros(0, bool)
    return [pair for pair, is_stored in zip(pairs, mask, strict=True) if is_stored]


def _errors_of(
    sample: Sequence[tuple[int, str]],
    store: Store,
    resolved: BuiltBackbone,
    view: View,
    dataset: Dataset,
    contents: Sequence[str],
) -> dict[str, float]:
    """Return by path how far a computed row is from the stored one, relative to its values."""
    errors: dict[str, float] = {}
    smallest = max(1e-30, float(np.finfo(store.dtype).tiny))
    for position, image_id in sample:
        path, how = dataset.paths[position], resolved.request.resize
        try:
            plain = dataset.pixels(position, store.spec.image_size, how, contents[position])
            pixels = view.apply(plain, image_id)
            row = resolved.backbone.embed(pixels[None])[0]
        except BadImage:
            errors[path] = float("inf")  # a stored image could be read when it was computed
            continue
        errors[path] = _relative_error(row, store.read([image_id])[0], smallest)
    return errors


def _view_of(store: Store) -> View:
    view = parse_view(store.spec.views)
    if view is None:
        raise InvalidRequest(
            f"{store.folder.name} holds the views {store.spec.views[:80]!r}, which this "
            "version of featcache does not know. Upgrade featcache.",
            received=store.spec.views,
        )
    return view


def _relative_error(
    row: NDArray[np.float32], stored: NDArray[np.float32], smallest: float
) -> float:
    """Return the largest difference, relative to the row's largest value; that is >= `smallest`."""
    return float(np.abs(row - stored).max() / max(np.abs(row).max(), smallest))


def _recorded_weights(store: Store) -> str:
    """Return the argument `weights` with which a store was made."""
    argument = store.metadata.get("weights_argument")
    if argument is None:
        raise InvalidRequest(
            f"{store.folder.name} does not record with which weights= it was made (a repaired "
            "manifest, or an earlier version). Pass weights= (--weights): 'auto' for the default "
            "ones, 'random:SEED' or the file.",
            received=None,
        )
    return argument


def _make_request(
    store: Store, crop: str, backbone: BackboneLike | None, weights: WeightsLike
) -> Request:
    """Return a request of the backbone of a store, from its spec and metadata."""
    spec: BackboneSpec = store.spec
    if spec.is_imported:
        raise InvalidRequest(
            f"{store.folder.name} holds imported features, which featcache cannot compute again.",
            received=None,
        )
    if backbone is None and spec.is_own_model:
        raise InvalidRequest(
            f"{store.folder.name} holds features of a user-defined model; pass that model as "
            "backbone=.",
            received=None,
        )
    rule = parse_resize(spec.resize)
    if rule is None:
        raise InvalidRequest(
            f"The images of {store.folder.name} were resized as {spec.resize[:80]!r}, which this "
            "version of featcache does not know. Upgrade featcache.",
            received=spec.resize,
        )
    options: dict[str, Any] = {
        "layer": spec.layer,
        "image_size": spec.image_size,
        "resize": rule.resize,
        "precision": spec.precision,
        "row_dtype": spec.row_dtype,
    }
    if spec.pooling != "none":
        options["pooling"] = spec.pooling
    with contextlib.suppress(InvalidRequest):  # a function, or one of a later version
        options["preprocessing"] = as_rule(store.metadata.get("preprocessing"))
    if backbone is None:
        options["weights"] = weights or _recorded_weights(store)
        backbone = spec.backbone
    return replace(make_request(backbone, BackboneOptions(**options)), crop=crop)
