"""Compute some images again and compare them with what is stored."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .._io.cache_dirs import cache_folder, weights_folder
from ..backbones.preprocessing import RULES
from ..backbones.request import make_request
from ..backbones.resolve import build
from ..backbones.spec import BackboneSpec, differing
from ..data.boxes import Crop
from ..data.file_index import content_ids
from ..datasets.load import load_dataset
from ..errors import InvalidRequest, StoreMismatch
from ..images.decode import load_pixels
from ..images.image_file import BadImage, example_ids
from ..store.store import Store

TOLERANCES = {"float32": 1e-4, "bfloat16": 0.3}


@dataclass(frozen=True)
class SampleCheck:
    """What came of computing images again.

    Attributes
    ----------
    images : int
        That were computed.
    largest : float
        Largest relative difference of a row: of its values from the stored ones, in units
        of the row's largest value.
    differing : list of (str, float)
        Paths whose row differs by more than the tolerance, with the difference.
    tolerance : float
        1e-4 in float32; 0.3 in bfloat16, which engines and processors round differently.
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
    data: Any,
    count: int = 20,
    *,
    random_state: int = 0,
    crop: Crop | None = None,
    margin: float = 0.0,
    backbone: Any = None,
    weights: Any = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> SampleCheck:
    """Compute a sample of a store's images again, and compare.

    Parameters
    ----------
    folder : path
        The store.
    data : optional
        Where its images are; whatever `featcache.extract` takes.
    count : int
        How many of those that are stored, at random.
    random_state : int
    crop, margin
        As for `featcache.extract`.
    backbone : keras.Model, optional
        Needed if the store holds features of a model of your own.
    weights : optional
        Needed if they are a file that lies elsewhere now.
    cache_dir : path, optional

    Returns
    -------
    SampleCheck

    Raises
    ------
    InvalidRequest
        If no image of the data is stored, or a model is needed.
    StoreMismatch
        If the present backbone is not the one of the store.
    """
    store = Store(Path(folder))
    dataset = load_dataset(data, crop=crop, margin=margin, cache_dir=cache_dir)
    contents = content_ids(dataset, cache_dir)
    examples = example_ids(contents, dataset.boxes)
    pairs = [(i, image_id) for i, image_id in enumerate(examples) if image_id]
    there = store.contains([image_id for _, image_id in pairs]) if pairs else np.zeros(0, bool)
    known = [pair for pair, stored in zip(pairs, there, strict=True) if stored]
    if not known or count < 1:
        raise InvalidRequest(
            f"{len(known)} of the {len(dataset)} images are stored in {store.folder}; a sample "
            f"needs at least one of them, and count={count} from 1.",
            received=count,
        )
    cache = cache_folder(cache_dir)
    resolved = build(_request(store, dataset.crop, backbone, weights), weights_folder(cache))
    changed = differing(store.spec, resolved.spec)
    if changed:
        raise StoreMismatch(
            f"The present backbone differs from that of {store.folder.name} in "
            f"{', '.join(changed)}, so nothing can be said of its rows.",
            stored=store.spec,
            requested=resolved.spec,
        )
    assert resolved.backbone is not None
    chosen = np.random.default_rng(random_state).permutation(len(known))[:count]
    how = resolved.request.resize
    errors: dict[str, float] = {}
    for position, image_id in (known[i] for i in np.sort(chosen)):
        path = dataset.paths[position]
        box = dataset.box(position)
        try:
            pixels = load_pixels(path, store.spec.image_size, how, contents[position], box)
        except BadImage:
            errors[path] = float("inf")  # it is stored, so it could be read once
            continue
        row, stored = resolved.backbone.embed(pixels[None])[0], store.read([image_id])[0]
        errors[path] = float(np.abs(row - stored).max() / max(np.abs(row).max(), 1e-30))
    tolerance = TOLERANCES[store.spec.precision]
    bad = [(path, error) for path, error in errors.items() if not error <= tolerance]
    return SampleCheck(len(errors), max(errors.values()), bad, tolerance)


def _request(store: Store, crop: str, backbone: Any, weights: Any) -> Any:
    """Ask for the backbone of a store, by what the store says of itself."""
    spec: BackboneSpec = store.spec
    if backbone is None and spec.backbone.startswith("custom-"):
        raise InvalidRequest(
            f"{store.folder.name} holds features of a model of its maker; pass that model as "
            "backbone=.",
            received=None,
        )
    how: dict[str, Any] = {
        "layer": spec.layer,
        "image_size": spec.image_size,
        "resize": spec.resize.split("-")[-2],
        "precision": spec.precision,
    }
    if spec.pooling != "none":
        how["pooling"] = spec.pooling
    rule = store.metadata.get("preprocessing")
    named = rule if rule in RULES else None
    if backbone is None:
        how["weights"] = weights or _weights(store.metadata.get("weights", "auto"))
        request = make_request(spec.backbone, preprocessing_rule=named, **how)
    else:
        request = make_request(backbone, preprocessing_rule=named, **how)
    return replace(request, crop=crop)


def _weights(origin: str) -> str:
    seed = re.fullmatch(r"random \(seed (\d+)\)", origin)
    if seed:
        return f"random:{seed[1]}"
    return origin if os.path.isabs(origin) else "auto"
