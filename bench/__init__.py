"""The comparison: contenders on one split, through one evaluation."""

from .contenders import CachedHead, Contender, Facts
from .evaluate import evaluate
from .results import Cost, Result, Results
from .splits import Images, Split, load_split, make_split

__all__ = [
    "CachedHead",
    "Contender",
    "Cost",
    "Facts",
    "Images",
    "Result",
    "Results",
    "Split",
    "evaluate",
    "load_split",
    "make_split",
]
