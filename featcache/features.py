"""What `extract` returns: embeddings joined to the data set's labels, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidRequest, MissingExtra
from .imagefile import Box, example_ids
from .printable import printable
from .progress import StageSeconds
from .rows import StoredRows
from .specs import BackboneSpec
from .splits import official_split, stratified_group_split

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
    label : str or None
    """

    path: str
    reason: str
    position: int
    label: str | None = None


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
    stages : StageSeconds or None
        How long each stage worked.
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
    stages: StageSeconds | None = None

    def __str__(self) -> str:
        common = sorted(self.reasons.items(), key=lambda item: -item[1])
        why = "; ".join(f"{count} x {printable(reason)}" for reason, count in common[:3])
        why = f" ({why}{'; ...' if len(common) > 3 else ''})" if why else ""
        return (
            f"{self.stored} stored, {self.computed} computed, {self.quarantined} quarantined{why} "
            f"in {self.seconds:.1f} s"
            + (f" ({self.engine}: {self.stages})" if self.stages is not None else "")
            + f"; store {printable(self.folder)}"
        )


@dataclass(frozen=True)
class Features:
    """Embeddings of a data set's images, one row for each image that could be read.

    Attributes
    ----------
    X : StoredRows
        (n, d) float32 array-like, read from the store when it is used.
    y : ndarray (n,) of int64, or None
        Index into `classes`; None for a data set without labels.
    classes : list of str or None
    paths : list of str
    ids : list of str
        Content id of each image: the SHA-256 of its file.
    positions : ndarray (n,) of int64
        Position of each row in the data set; gaps are the quarantined images.
    quarantined : list of Quarantined
    parts : list of str or None
        The data set's own split, where it has one.
    attributes : mapping of str to list of str
        Further columns of the data set.
    boxes : list of (int, int, int, int), or None
        The part of its photo that each row was computed from; None for whole photos.
    spec : BackboneSpec
    summary : ExtractionSummary
    arguments : mapping of str to Any
        Those of `featcache.extract` that give the same kind of features.
    """

    X: StoredRows
    y: NDArray[np.int64] | None
    classes: list[str] | None
    paths: list[str]
    ids: list[str]
    positions: NDArray[np.int64]
    spec: BackboneSpec
    summary: ExtractionSummary
    quarantined: list[Quarantined] = field(default_factory=list)
    parts: list[str] | None = None
    attributes: Mapping[str, list[str]] = field(default_factory=dict)
    boxes: list[Box | None] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes is not None else ""
        bad = f", {len(self.quarantined)} quarantined" if self.quarantined else ""
        return (
            f"<Features {self.X.shape[0]} x {self.X.shape[1]} of {self.summary.backbone}"
            f"/{self.spec.layer}{classes}{bad}>"
        )

    @property
    def example_ids(self) -> list[str]:
        """Identity of each row: its photo's content id, or that of photo and box together."""
        return example_ids(self.ids, self.boxes)

    @property
    def labels(self) -> list[str] | None:
        """The class name of each row; None for a data set without labels."""
        if self.y is None or self.classes is None:
            return None
        return [self.classes[i] for i in self.y]

    def take(self, rows: Any) -> Features:
        """Return the features of some rows (positions or a mask), without reading them."""
        index = np.arange(len(self))[rows]

        def pick(values: Sequence[T]) -> list[T]:
            return [values[i] for i in index]

        return replace(
            self,
            X=self.X.take(index),
            y=None if self.y is None else self.y[index],
            paths=pick(self.paths),
            ids=pick(self.ids),
            positions=self.positions[index],
            quarantined=[],
            parts=None if self.parts is None else pick(self.parts),
            attributes={name: pick(values) for name, values in self.attributes.items()},
            boxes=None if self.boxes is None else pick(self.boxes),
        )

    def split(self, test_size: float | None = None, seed: int = 0) -> tuple[Features, Features]:
        """Split into train and test, in class proportions, copies of a photo together.

        Parameters
        ----------
        test_size : float, optional
            Share of the images for the test part. Without it, the data set's own split is
            used if it has one, else 0.2.
        seed : int
            The same seed gives the same split.

        Returns
        -------
        (Features, Features)

        Raises
        ------
        InvalidRequest
            If one part would be empty.
        """
        if test_size is None and self.parts is not None:
            train, test = official_split(self.ids, self.parts)
        else:
            labels = None if self.y is None else self.y.tolist()
            train, test = stratified_group_split(self.ids, labels, test_size or 0.2, seed)
        return self.take(train), self.take(test)

    def to_frame(self, *, embeddings: bool = False) -> Any:
        """Return a pandas DataFrame with one row an image.

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
            columns["label"] = self.labels
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
