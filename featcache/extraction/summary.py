"""Counts and timings of an extraction, and the images that it could not use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .._io.progress import StageTimings
from .._io.wording import format_count
from ..backbones.weights import WeightsKind
from ..printable import printable


@dataclass(frozen=True)
class Quarantined:
    """An image that could not be used, and why.

    Attributes
    ----------
    path : str
    reason : str
    position : int
        Position in the data set.
    label : str, int, bool, float or None
    """

    path: str
    reason: str
    position: int
    label: Any = None


@dataclass(frozen=True)
class WorkerSummary:
    """What a worker of a cluster computed; ``str()`` of it is one line of text.

    Attributes
    ----------
    name : str
        Its name in the cluster, which is its address by default.
    images : int
        Number of views of images whose rows it committed.
    seconds : float
        Seconds that it worked on tasks, with loading the engine.
    """

    name: str
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Mean speed."""
        return self.images / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return (
            f"{printable(self.name)}: {format_count(self.images, 'image')} in {self.seconds:.1f} s"
            f" ({self.images_per_second:.1f} images/s)"
        )


@dataclass(frozen=True)
class ExtractionSummary:
    """Counts and timings of a call of `extract`; ``str()`` of it is one line of text.

    Attributes
    ----------
    stored, computed : int
        Numbers of images that were in the store, and that were computed; with several views,
        of views of images.
    quarantined : int
        Number of images that could not be used.
    seconds : float
        Wall time of the call.
    folder : Path or str
        Folder of the store, its URL in an object store; with several views, of the images without
        augmentation. That in `shared_dir`, if all rows are there.
    backbone : str
        Human-readable name of the backbone.
    weights : str
        Human-readable origin of the weights.
    weights_kind : {"imagenet", "packaged", "file", "random", "model", "imported"}
        The origin as a code, for programs.
    seconds_per_image : float
        Mean wall time of computing an image with all its views, over all extractions.
    reasons : mapping of str to int
        Number of quarantined images by reason.
    engine : str or None
        Name of the engine; None if nothing was computed.
    stages : StageTimings or None
        Seconds that each stage worked; None if nothing was computed.
    unlabelled : int
        Number of rows without a label, in a data set with labels.
    ignored : mapping of str to int
        Number of files in the folder that are not images, by file extension.
    ignored_files : sequence of str
        Their paths; a hidden folder ends in a separator.
    hints : sequence of str
        How to install the optional packages that can read some of them.
    conflicts : sequence of mapping
        Images of identical content with several labels: ``id``, ``paths`` and ``labels`` of each.
    workers : sequence of WorkerSummary
        What each worker of a cluster computed; empty without one.
    parts : sequence of ExtractionSummary
        Of `featcache.concat`: the summaries of its parts, whose sums these are; else empty.
    """

    stored: int
    computed: int
    quarantined: int
    seconds: float
    folder: Path | str
    backbone: str
    weights: str
    weights_kind: WeightsKind
    seconds_per_image: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)
    engine: str | None = None
    stages: StageTimings | None = None
    unlabelled: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    ignored_files: Sequence[str] = ()
    hints: Sequence[str] = ()
    conflicts: Sequence[Mapping[str, Any]] = ()
    workers: Sequence[WorkerSummary] = ()
    parts: Sequence[ExtractionSummary] = ()

    def __str__(self) -> str:
        common = sorted(self.reasons.items(), key=lambda item: -item[1])
        why = "; ".join(f"{count} x {printable(reason)}" for reason, count in common[:3])
        why = f" ({why}{'; ...' if len(common) > 3 else ''})" if why else ""
        return (
            f"{self.stored} stored, {self.computed} computed, {self.quarantined} quarantined{why} "
            + (f"({self.unlabelled} unlabelled) " if self.unlabelled else "")
            + (f"({len(self.conflicts)} under several labels) " if self.conflicts else "")
            + (f"({self._ignored()}) " if self.ignored else "")
            + f"in {self.seconds:.1f} s"
            + (f" ({self.engine}: {self.stages})" if self.stages is not None else "")
            + (f" by {format_count(len(self.workers), 'worker')}" if self.workers else "")
            + f"; {self._stores()}"
        )

    def _stores(self) -> str:
        folders = dict.fromkeys(printable(one.folder) for one in self.parts or (self,))
        return f"{'store' if len(folders) == 1 else 'stores'} {', '.join(folders)}"

    def _ignored(self) -> str:
        counts = list(self.ignored.items())[:5]
        shown = ", ".join(f"{count} {printable(ending)}" for ending, count in counts)
        more = ", ..." if len(self.ignored) > 5 else ""
        count = format_count(len(self.ignored_files), "other file")
        return "; ".join([f"{count} ignored: {shown}{more}", *self.hints])


def joined_summary(
    summaries: Sequence[ExtractionSummary], quarantined: Sequence[Quarantined]
) -> ExtractionSummary:
    """Return the summary of features side by side: sums of counts and seconds."""
    parts = [part for summary in summaries for part in summary.parts or (summary,)]
    kinds = [part.weights_kind for part in parts]
    return replace(
        parts[0],
        stored=sum(part.stored for part in parts),
        computed=sum(part.computed for part in parts),
        quarantined=len(quarantined),
        seconds=sum(part.seconds for part in parts),
        backbone=" + ".join(part.backbone for part in parts),
        weights=" + ".join(dict.fromkeys(part.weights for part in parts)),
        # Of several, one that may have seen the photos, if there is one.
        weights_kind=next((kind for kind in kinds if kind != "random"), kinds[0]),
        seconds_per_image=sum(part.seconds_per_image for part in parts),
        reasons=Counter(bad.reason for bad in quarantined),
        engine=" + ".join(dict.fromkeys(p.engine for p in parts if p.engine)) or None,
        stages=None,
        workers=[worker for part in parts for worker in part.workers],
        parts=parts,
    )
