"""The comparison: contenders on one split, through one evaluation."""

from .contenders import CachedHead, Contender, Facts
from .evaluate import evaluate
from .finetune import PRESETS, FineTuned
from .network import NO_AUGMENTATION, Augmentation
from .report import write_report
from .results import Cost, Result, Results
from .splits import Images, Split, load_split, make_split
from .summary import Summary, summarise

__all__ = [
    "NO_AUGMENTATION",
    "PRESETS",
    "Augmentation",
    "CachedHead",
    "Contender",
    "Cost",
    "Facts",
    "FineTuned",
    "Images",
    "Result",
    "Results",
    "Split",
    "Summary",
    "evaluate",
    "load_split",
    "make_split",
    "summarise",
    "write_report",
]


def __dir__() -> list[str]:
    return sorted(__all__)
