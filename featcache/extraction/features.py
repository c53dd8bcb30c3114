"""What `extract` returns: embeddings joined to the data set's labels, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._io.html import facts_table
from .._io.progress import StageTimings
from .._io.wording import counted, few
from ..backbones.spec import BackboneSpec
from ..data.split import split_rows
from ..errors import InvalidRequest, MissingExtra
from ..images.image_file import Box, example_ids
from ..printable import printable
from ..store.lazy_rows import StoredRows

T = TypeVar("T")


@dataclass(frozen=True)
class Quarantined:
    """An image that has no row, and why.

    Attributes
    ----------
    path : str
    reason : str
    position : int
        Its position in the data set.
    label : str, int, bool, float or None
    """

    path: str
    reason: str
    position: int
    label: Any = None


@dataclass(frozen=True)
class ExtractionSummary:
    """What a call of `extract` did.

    Attributes
    ----------
    stored, computed, quarantined : int
        Images found in the store, computed now, and left out.
    seconds : float
        Wall time of the call.
    folder : Path
        The store.
    backbone : str
        The backbone's name, for people.
    weights : str
        Where the weights came from.
    seconds_per_image : float
        Wall time that computing a row of the store took, on average, whenever that was.
    reasons : mapping of str to int
        Why images were quarantined, with how many.
    engine : str or None
        What computed; None if nothing was.
    stages : StageTimings or None
        How long each stage worked.
    unlabelled : int
        Rows without a label, in a data set with labels.
    ignored : mapping of str to int
        How many files of the folder were not taken for images, by ending.
    ignored_files : sequence of str
        Their paths; a hidden folder ends in a separator.
    hints : sequence of str
        How to install what would read some of them.
    conflicts : sequence of mapping
        Contents that occur under several labels: ``id``, ``paths`` and ``labels`` of each.
    """

    stored: int
    computed: int
    quarantined: int
    seconds: float
    folder: Path
    backbone: str
    weights: str
    seconds_per_image: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)
    engine: str | None = None
    stages: StageTimings | None = None
    unlabelled: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    ignored_files: Sequence[str] = ()
    hints: Sequence[str] = ()
    conflicts: Sequence[Mapping[str, Any]] = ()

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
            + f"; store {printable(self.folder)}"
        )

    def _ignored(self) -> str:
        counts = list(self.ignored.items())[:5]
        shown = ", ".join(f"{count} {printable(ending)}" for ending, count in counts)
        more = ", ..." if len(self.ignored) > 5 else ""
        count = counted(len(self.ignored_files), "other file")
        return "; ".join([f"{count} ignored: {shown}{more}", *self.hints])


@dataclass(frozen=True, eq=False)
class Features:
    """Embeddings of a data set's images, one row for each image that could be read.

    Attributes
    ----------
    X : StoredRows
        (n, d) float32 array-like, read from the store when it is used.
    y : ndarray (n,), or None
        Index into `classes`, int64. Where rows are unlabelled, float64 with NaN for these, so
        that they are never a class: estimators refuse NaN. None for a data set without labels.
    classes : list of str, int, bool or float, or None
        The labels as they were given, in their natural order; a Categorical's in its own. The
        labels 0 to k-1 have the codes 0 to k-1.
    paths : list of str
    ids : list of str
        Content id of each image: the SHA-256 of its file.
    positions : ndarray (n,) of int64
        Position of each row in the data set; gaps are the quarantined images.
    quarantined : list of Quarantined
    parts : list of str or None
        The data set's own split, where it has one.
    attributes : mapping of str to ndarray
        Further columns of the data set, each of its own dtype.
    boxes : list of (int, int, int, int), or None
        The part of its photo that each row was computed from; None for whole photos.
    spec : BackboneSpec
    summary : ExtractionSummary
    arguments : mapping of str to Any
        Those of `featcache.extract` that give the same kind of features.
    categorical : bool
        Whether the order of `classes` was given, by a pandas Categorical for example.
    """

    X: StoredRows
    y: NDArray[Any] | None
    classes: list[Any] | None
    paths: list[str]
    ids: list[str]
    positions: NDArray[np.int64]
    spec: BackboneSpec
    summary: ExtractionSummary
    quarantined: list[Quarantined] = field(default_factory=list)
    parts: list[str] | None = None
    attributes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    boxes: list[Box | None] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    categorical: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        classes = (
            f", {counted(len(self.classes), 'class', 'classes')}"
            if self.classes is not None
            else ""
        )
        bad = f", {len(self.quarantined)} quarantined" if self.quarantined else ""
        return (
            f"<Features {self.X.shape[0]} x {self.X.shape[1]} of {self.summary.backbone}"
            f"/{self.spec.layer}{classes}{bad}>"
        )

    @property
    def example_ids(self) -> list[str]:
        """Identity of each row: its photo's content id, or that of photo and box together."""
        return example_ids(self.ids, self.boxes)

    def _repr_html_(self) -> str:
        facts = {
            "backbone": f"{self.summary.backbone}/{self.spec.layer}",
            "rows": f"{self.X.shape[0]:,} x {self.X.shape[1]:,}",
        }
        if self.classes is not None:
            facts["classes"] = f"{len(self.classes):,} ({few(self.classes)})"
        if self.parts is not None:
            parts = {part: self.parts.count(part) for part in dict.fromkeys(self.parts)}
            facts["split"] = ", ".join(f"{part} {count:,}" for part, count in parts.items())
        counts = {
            "unlabelled": int((~self.is_labelled).sum()) if self.y is not None else 0,
            "quarantined": len(self.quarantined),
            "ignored files": len(self.summary.ignored_files),
            "under several labels": len(self.summary.conflicts),
        }
        facts |= {name: f"{count:,}" for name, count in counts.items() if count}
        if self.attributes:
            facts["columns"] = few([f"{k} ({v.dtype})" for k, v in self.attributes.items()], str)
        return facts_table("Features", facts)

    @property
    def labels(self) -> list[Any] | None:
        """The label of each row, None for an unlabelled one; None without any labels."""
        if self.y is None or self.classes is None:
            return None
        return [None if np.isnan(i) else self.classes[int(i)] for i in self.y]

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Whether each row has a label, as a mask: ``features[features.is_labelled]``."""
        return np.zeros(len(self), bool) if self.y is None else ~np.isnan(self.y)

    def __getitem__(self, rows: Any) -> Features:
        return self.take(rows)

    def take(self, rows: Any) -> Features:
        """Return the features of some rows, without reading them.

        Parameters
        ----------
        rows : int, slice, sequence of int, or mask
            ``features[rows]`` is the same.

        Raises
        ------
        IndexError
            If there is no such row, or a mask has another length.
        """
        if isinstance(rows, tuple):
            raise IndexError(
                "features[...] chooses rows alone; take columns of features.X, or rows by a list"
            )
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(rows, slice) and not rows.size:
            rows = rows.astype(np.int64)  # an empty list is one of floats to NumPy
        index = np.atleast_1d(np.arange(len(self))[rows])
        if index.ndim != 1:
            raise IndexError("rows are chosen by a number, a slice, a mask or a list")

        def pick(values: Sequence[T]) -> list[T]:
            return [values[i] for i in index]

        return replace(
            self,
            X=self.X.take(index),
            y=None if self.y is None else _whole(self.y[index]),
            paths=pick(self.paths),
            ids=pick(self.ids),
            positions=self.positions[index],
            quarantined=[],
            parts=None if self.parts is None else pick(self.parts),
            attributes={name: values[index] for name, values in self.attributes.items()},
            boxes=None if self.boxes is None else pick(self.boxes),
        )

    def split(
        self, test_size: float | None = None, random_state: int = 0
    ) -> tuple[Features, Features]:
        """Split into train and test, in class proportions, copies of a photo together.

        Parameters
        ----------
        test_size : float, optional
            Fraction of the images for the test part, between 0 and 1 exclusive. Without it,
            the data set's own split is used if it has one, else 0.2. Of the own split,
            validation rows are in the training part, with a warning in the log; choose by
            `parts` for three parts: ``features[np.array(features.parts) == "validation"]``.
        random_state : int
            The same number gives the same split.

        Returns
        -------
        (Features, Features)
            Unlabelled rows are in neither, which is logged. Only an own test part without
            any label is returned as it is, for prediction.

        Raises
        ------
        InvalidRequest
            If `test_size` is out of range, or one part would be empty.
        """
        codes = None
        if self.y is not None:
            codes = [None if np.isnan(code) else int(code) for code in self.y]
        train, test, _ = split_rows(self.ids, codes, self.parts, test_size, random_state)
        return self.take(train), self.take(test)

    def to_frame(self, *, embeddings: bool = False) -> Any:
        """Return a pandas DataFrame with one row per image.

        Labels that were a Categorical are one again, with the categories in their order.

        Parameters
        ----------
        embeddings : bool
            Also the embedding, in columns ``f0`` to ``f<d-1>``; reads all rows.

        Raises
        ------
        MissingExtra
            Without pandas.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra(
                "to_frame() needs pandas: pip install 'featcache[pandas]'.", package="pandas"
            ) from error
        if "path" in self.attributes or "id" in self.attributes:
            raise InvalidRequest("An attribute column is called 'path' or 'id'; rename it.")
        columns: dict[str, Any] = {"path": self.paths, "id": self.ids}
        if self.labels is not None:
            whole = self.is_labelled.all()  # else pandas would make floats of whole numbers
            dtype = pd.CategoricalDtype(self.classes) if self.categorical else None
            columns["label"] = pd.Series(self.labels, dtype=dtype if whole or dtype else object)
        if self.parts is not None:
            columns["split"] = self.parts
        if self.boxes is not None:
            columns["box"] = self.boxes
        frame = pd.DataFrame({**columns, **self.attributes})
        if embeddings:
            names = [f"f{i}" for i in range(self.X.shape[1])]
            values = pd.DataFrame(np.asarray(self.X), columns=names)
            frame = pd.concat([frame, values], axis=1)
        return frame


def _whole(codes: NDArray[Any]) -> NDArray[Any]:
    """Return codes as int64 again once no row is unlabelled."""
    return codes if np.isnan(codes).any() else codes.astype(np.int64)
