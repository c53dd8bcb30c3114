"""Classical heads on stored embeddings: scikit-learn estimators with calibrated output."""

from .base import Head
from .dense import DenseHead
from .lightgbm import LightGBMHead
from .logistic import LogisticHead
from .registry import HEADS, make_head
from .search import SearchResult, search
from .svm import SVMHead

__all__ = [
    "HEADS",
    "DenseHead",
    "Head",
    "LightGBMHead",
    "LogisticHead",
    "SVMHead",
    "SearchResult",
    "make_head",
    "search",
]


def __dir__() -> list[str]:
    return sorted(__all__)
