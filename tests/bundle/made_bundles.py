"""A bundle of a head that was trained on photos of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import featcache
from featcache import extract, make_bundle
from heads import make_head


def write_dogs(root: Path) -> Path:
    """Write sixty photos of noise of three brightnesses, one folder each."""
    from PIL import Image

    for i in range(60):
        generator = np.random.default_rng(i)
        pixels = generator.integers(0, 60, (20, 24, 3), np.uint8) + np.uint8(90 * (i % 3))
        path = root / ("dark", "grey", "light")[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def make_dogs_bundle(dogs: Path, path: Path) -> tuple[featcache.Bundle, Path, Any]:
    """Save a bundle; return it, its path, and the probabilities that its head gives."""
    features = extract("mobilenet", dogs, weights="random", image_size=32)
    head = make_head("logistic").fit(features.X, features.labels)
    bundle = make_bundle(
        features, head.to_classifier(), metrics={"top1": 0.9}, metadata={"Data": "noise"}
    )
    bundle.save(path)
    return bundle, path, head.predict_proba(features.X)
