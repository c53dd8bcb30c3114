"""Benchmark: train and score contenders on one split by one evaluation, and report the results.

`make_split` divides a data set, `evaluate` trains `CachedHead`, `FineTuned` or other contenders
and returns `Results`, `summarise` adds intervals and tests, `write_report` writes an HTML page.
``python -m bench`` does all of it.
"""

from featcache import Augmentation

from .analysis.earlier import EarlierRun, read_earlier_run
from .analysis.summary import Summary, summarise
from .contenders.base import Contender, ContenderInfo, Training
from .contenders.cached_head import CachedHead
from .contenders.frozen_backbone import FrozenBackbone
from .evaluation.callbacks import Callback
from .evaluation.evaluate import evaluate
from .evaluation.results import Cost, Result, Results
from .evaluation.trackers import MLflowCallback, WandbCallback
from .finetune.fine_tuned import FineTuned
from .finetune.network import NO_AUGMENTATION
from .presets import PRESETS
from .report.report import write_report
from .splits import Images, Split, load_split, make_split

__all__ = [
    "NO_AUGMENTATION",
    "PRESETS",
    "Augmentation",
    "CachedHead",
    "Callback",
    "Contender",
    "ContenderInfo",
    "Cost",
    "EarlierRun",
    "FineTuned",
    "FrozenBackbone",
    "Images",
    "MLflowCallback",
    "Result",
    "Results",
    "Split",
    "Summary",
    "Training",
    "WandbCallback",
    "evaluate",
    "load_split",
    "make_split",
    "read_earlier_run",
    "summarise",
    "write_report",
]


def __dir__() -> list[str]:
    return sorted(__all__)
