"""Heads: classifiers on stored embeddings, scikit-learn estimators with calibrated probabilities.

>>> import featcache, heads
>>> features = featcache.extract("pocket")
>>> train, test = features.split(test_size=0.25)
>>> head = heads.LogisticHead().fit(train.X, train.y)
>>> head.predict_proba(test.X).shape == (len(test), len(features.classes))
True
"""

from .base import Head
from .dense import DenseHead
from .lightgbm import LightGBMHead
from .logistic import LogisticHead
from .neighbors import KNNHead
from .registry import HEADS, make_head
from .ridge import RidgeHead
from .search import SearchResult, search
from .svm import SVMHead

__all__ = [
    "HEADS",
    "DenseHead",
    "Head",
    "KNNHead",
    "LightGBMHead",
    "LogisticHead",
    "RidgeHead",
    "SVMHead",
    "SearchResult",
    "make_head",
    "search",
]


def __dir__() -> list[str]:
    return sorted(__all__)
