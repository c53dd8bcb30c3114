"""Compute image embeddings once with a frozen Keras backbone, and reuse them.

>>> import featcache
>>> features = featcache.extract("pocket")
>>> features.X.shape, features.y.shape
((200, 256), (200,))

Embeddings
    extract         compute the missing embeddings, and return all as `Features`
    Augmentation    how the augmented views of an image differ
    Normalization   how a network of your own wants its pixels
    import_features store embeddings that were computed elsewhere
    concat          put the features of several backbones side by side
    explain         what `extract` would do with the same arguments, and why
    FeatureExtractor  embeddings as a step of a scikit-learn pipeline
    load_dataset    load a folder, table or list of images as a `Dataset`
    load_backbone   load or build a backbone
    load_model      load a saved Keras model, checked before Keras opens it

Classifiers
    make_bundle     combine a trained head with the spec of its features
    load_bundle     load a `Bundle`, which predicts from images
    Predictor       a bundle with its backbone loaded, for a service

Stores
    open_store      open the `Store` in a folder
    verify, repair  find damage; save the valid rows

Heads are in the package `heads`, the comparison of contenders in `bench`. Errors are in
`featcache.errors`; all are a `FeatcacheError`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import datasets as datasets
    from . import errors as errors
    from .backbones.imported import ImportedModel as ImportedModel
    from .backbones.keras_backend import import_keras as import_keras
    from .backbones.model_file import load_model as load_model
    from .backbones.normalization import Normalization as Normalization
    from .backbones.resolve import load_backbone as load_backbone
    from .backbones.spec import BackboneSpec as BackboneSpec
    from .bundle.bundle import Bundle as Bundle
    from .bundle.bundle import load_bundle as load_bundle
    from .bundle.classifier import Classifier as Classifier
    from .bundle.classifier import ClassifierStep as ClassifierStep
    from .bundle.make import make_bundle as make_bundle
    from .bundle.predictor import Predictor as Predictor
    from .data.dataset import Dataset as Dataset
    from .datasets.load import load_dataset as load_dataset
    from .errors import FeatcacheError as FeatcacheError
    from .errors import RandomWeightsWarning as RandomWeightsWarning
    from .extraction.concat import concat as concat
    from .extraction.extract import extract as extract
    from .extraction.features import Features as Features
    from .extraction.imports import import_features as import_features
    from .extraction.plan import Explanation as Explanation
    from .extraction.prepare import explain as explain
    from .extraction.transformer import FeatureExtractor as FeatureExtractor
    from .images.views import Augmentation as Augmentation
    from .store.maintenance import repair as repair
    from .store.maintenance import verify as verify
    from .store.store import Store as Store

# The module of each public name. Imported on first use, so that `import featcache` stays fast.
_MODULES = {
    "Augmentation": "images.views",
    "BackboneSpec": "backbones.spec",
    "Bundle": "bundle.bundle",
    "Classifier": "bundle.classifier",
    "ClassifierStep": "bundle.classifier",
    "Dataset": "data.dataset",
    "Explanation": "extraction.plan",
    "FeatcacheError": "errors",
    "FeatureExtractor": "extraction.transformer",
    "Features": "extraction.features",
    "Normalization": "backbones.normalization",
    "ImportedModel": "backbones.imported",
    "Predictor": "bundle.predictor",
    "RandomWeightsWarning": "errors",
    "Store": "store.store",
    "concat": "extraction.concat",
    "explain": "extraction.prepare",
    "import_features": "extraction.imports",
    "import_keras": "backbones.keras_backend",
    "extract": "extraction.extract",
    "load_bundle": "bundle.bundle",
    "make_bundle": "bundle.make",
    "load_backbone": "backbones.resolve",
    "load_dataset": "datasets.load",
    "load_model": "backbones.model_file",
    "repair": "store.maintenance",
    "verify": "store.maintenance",
}

__all__ = [
    "Augmentation",
    "BackboneSpec",
    "Bundle",
    "Classifier",
    "ClassifierStep",
    "Dataset",
    "Explanation",
    "FeatcacheError",
    "FeatureExtractor",
    "Features",
    "ImportedModel",
    "Normalization",
    "Predictor",
    "RandomWeightsWarning",
    "Store",
    "__version__",
    "concat",
    "datasets",
    "errors",
    "explain",
    "extract",
    "import_features",
    "import_keras",
    "load_backbone",
    "load_bundle",
    "load_dataset",
    "load_model",
    "make_bundle",
    "open_store",
    "repair",
    "verify",
]


def open_store(folder: str | os.PathLike[str]) -> Store:
    """Open an existing store for reading and appending.

    Parameters
    ----------
    folder : path-like
        The folder of the store, or its URL in an object store, such as
        ``s3://bucket/prefix/stores/name``; `featcache ls` lists them.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        If the folder is not a store, or its manifest cannot be used.
    """
    from .store.place import open_location

    return open_location(folder)


def __getattr__(name: str) -> Any:
    if name in ("datasets", "errors"):
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
