"""`Features`, the return value of `extract`: embeddings joined to the labels of a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._io.html import facts_table
from .._io.wording import format_count, format_values
from ..data.split import split_rows
from ..errors import InvalidRequest
from ..export.export import ExportFormat, export_format, export_rows
from ..export.rows import ExportedRows, spec_metadata
from ..images.image_file import Box, example_ids
from ..store.lazy_rows import LazyRows
from .derived.rows import TransformedRows
from .derived.spec import DerivedSpec, FeatureSpec, origin_of
from .derived.steps import RowStep
from .derived.transformable import Transformable
from .frame import make_frame
from .summary import ExtractionSummary, Quarantined

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Features(Transformable):
    """Embeddings and labels of a data set, one row per usable image and view.

    With several views the rows of view 0, the images themselves, come first, in the data set's
    order, then those of view 1, and so on. All views of an image have its label, id and path.

    Attributes
    ----------
    X : LazyRows
        Embeddings, array-like of shape (n, d) and dtype float32, read from the store on use;
        float32 also if they are stored as float16, so that sums of them neither overflow nor
        lose digits.
    y : ndarray (n,), or None
        Codes of the labels: indices into `classes`, int64. If rows are unlabelled, float64
        with NaN for them: estimators refuse NaN. None for a data set without labels.
    classes : list of str, int, bool or float, or None
        The distinct labels, sorted, or in the order of a Categorical. Labels that are the
        integers 0 to k-1 are equal to their codes.
    paths : list of str
    ids : list of str
        Image id of each row: the SHA-256 of its file.
    positions : ndarray (n,), int64
        Position of each row in the data set. Quarantined images have no row.
    views : ndarray (n,), int64
        Number of the view of each row; 0 is the image without augmentation. In `mean_views`
        all are 0.
    quarantined : list of Quarantined
    parts : list of str or None
        Name of the part of each row, ``"train"`` for example, if the data set has a split.
    attributes : mapping of str to ndarray
        Further columns of the data set, each of its own dtype.
    boxes : list of (int, int, int, int), or None
        The box of each row, (left, top, right, bottom) in pixels of the upright photo; None
        for whole photos.
    spec : BackboneSpec or DerivedSpec
        What determines the embeddings. A `DerivedSpec` lists the specs of several backbones, and
        the steps `l2`, `standardize` and `pca` that followed.
    summary : ExtractionSummary
    arguments : mapping of str to Any
        Arguments of `featcache.extract` that give features of the same key; of
        `featcache.concat`, ``parts`` lists those of each part.
    categorical : bool
        Whether the order of `classes` was given, for example by a pandas Categorical.

    Examples
    --------
    >>> import featcache
    >>> features = featcache.extract("pocket", views=2, augmentation="flip")
    >>> features.X.shape, features[features.views == 0].X.shape, features.mean_views().X.shape
    ((400, 256), (200, 256), (200, 256))
    """

    X: LazyRows
    y: NDArray[Any] | None
    classes: list[Any] | None
    paths: list[str]
    ids: list[str]
    positions: NDArray[np.int64]
    views: NDArray[np.int64]
    spec: FeatureSpec
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
            f", {format_count(len(self.classes), 'class', 'classes')}"
            if self.classes is not None
            else ""
        )
        bad = f", {len(self.quarantined)} quarantined" if self.quarantined else ""
        views = f", {format_count(self._n_views, 'view')}" if self.views.any() else ""
        return (
            f"<Features {self.X.shape[0]} x {self.X.shape[1]} of {self.origin}"
            f"{classes}{views}{bad}>"
        )

    @property
    def origin(self) -> str:
        """Backbones, layers and steps, human-readable, such as ``"resnet50/avg_pool > l2"``."""
        parts = self.summary.parts or (self.summary,)
        return origin_of(self.spec, [part.backbone for part in parts])

    @property
    def stored_bytes(self) -> int:
        """Bytes that the values of the rows take in the stores."""
        return len(self) * DerivedSpec.of(self.spec, self.X.shape[1]).row_bytes()

    @property
    def _n_views(self) -> int:
        return len(np.unique(self.views))

    @property
    def example_ids(self) -> list[str]:
        """Example id of each row: the image id, or a hash of image id and box."""
        return example_ids(self.ids, self.boxes)

    def _repr_html_(self) -> str:
        facts = {
            "backbone": self.origin,
            "rows": f"{self.X.shape[0]:,} x {self.X.shape[1]:,}",
        }
        if self.views.any():
            facts["views"] = f"{self._n_views:,} of each image"
        if self.classes is not None:
            facts["classes"] = f"{len(self.classes):,} ({format_values(self.classes)})"
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
            facts["columns"] = format_values(
                [f"{k} ({v.dtype})" for k, v in self.attributes.items()], str
            )
        return facts_table("Features", facts)

    @property
    def labels(self) -> list[Any] | None:
        """The label of each row, None for an unlabelled row; None if the data have no labels."""
        if self.y is None or self.classes is None:
            return None
        return [None if np.isnan(i) else self.classes[int(i)] for i in self.y]

    @property
    def is_labelled(self) -> NDArray[np.bool_]:
        """Mask of the rows that have a label, (n,) bool: ``features[features.is_labelled]``."""
        return np.zeros(len(self), bool) if self.y is None else ~np.isnan(self.y)

    def __getitem__(self, rows: Any) -> Features:
        return self.take(rows)

    def take(self, rows: ArrayLike | slice) -> Features:
        """Return the features of some rows, without reading embeddings; `quarantined` is empty.

        Parameters
        ----------
        rows : int, slice, sequence of int, or mask
            ``features[rows]`` is the same.

        Returns
        -------
        Features

        Raises
        ------
        IndexError
            If a row does not exist, or a mask has another length.
        """
        if isinstance(rows, tuple):
            raise IndexError(
                "features[...] selects rows only; select columns of features.X, or rows by a list"
            )
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(rows, slice) and not rows.size:
            rows = rows.astype(np.int64)  # NumPy makes an array of floats of an empty list
        index = np.atleast_1d(np.arange(len(self))[rows])
        if index.ndim != 1:
            raise IndexError("rows are chosen by a number, a slice, a mask or a list")

        def pick(values: Sequence[T]) -> list[T]:
            return [values[i] for i in index]

        return replace(
            self,
            X=self.X.take(index),
            y=None if self.y is None else _as_integers(self.y[index]),
            paths=pick(self.paths),
            ids=pick(self.ids),
            positions=self.positions[index],
            views=self.views[index],
            quarantined=[],
            parts=None if self.parts is None else pick(self.parts),
            attributes={name: values[index] for name, values in self.attributes.items()},
            boxes=None if self.boxes is None else pick(self.boxes),
        )

    def mean_views(self) -> Features:
        """Return one row per image: the mean of the embeddings of its views.

        Predicting from the mean of a photo and its mirror image is a cheap form of test-time
        augmentation.

        Returns
        -------
        Features
            In the order in which the images come first; rows are read on use.

        Raises
        ------
        InvalidRequest
            If there is one view of each image.
        """
        if not self.views.any():
            raise InvalidRequest(
                "mean_views() averages several views of each image, but these features hold the "
                "images alone. Extract them with views=2 or more."
            )
        _, first, image = np.unique(self.positions, return_index=True, return_inverse=True)
        by_image = np.argsort(image, kind="stable")
        counts = np.bincount(image)
        rows = np.full((len(first), counts.max()), -1, np.int64)
        rows[np.arange(counts.max()) < counts[:, None]] = by_image
        order = np.argsort(first)
        mean = self.X.mean_of(rows[order])
        alone = self.take(first[order])
        return replace(alone, X=mean, views=np.zeros(len(first), np.int64))

    def with_step(self, step: RowStep) -> Features:
        """Return the features with a step applied to their rows when they are read."""
        spec = DerivedSpec.of(self.spec, self.X.shape[1]).with_step(step)
        return replace(self, X=TransformedRows(self.X, step), spec=spec)

    def split(
        self, test_size: float | None = None, random_state: int = 0
    ) -> tuple[Features, Features]:
        """Split into train and test, stratified by class, with copies of a photo in one part.

        All views of an image are in one part as well.

        Parameters
        ----------
        test_size : float, optional
            Fraction of the images in the test part, between 0 and 1 exclusive. Default: the
            data set's own split if it has one, else 0.2. Validation rows of an own split are
            in the training part, with a warning in the log; for three parts select by
            `parts`: ``features[np.array(features.parts) == "validation"]``.
        random_state : int
            Seed of the split.

        Returns
        -------
        (Features, Features)
            Train and test part. Unlabelled rows are in neither, which is logged; but a test
            part of the data set's own split that has no labels at all is returned as it is,
            for prediction.

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

    def export(
        self,
        path: str | os.PathLike[str],
        format: ExportFormat | None = None,
        *,
        overwrite: bool = False,
    ) -> list[Path]:
        """Write embeddings, ids, paths, labels and all other columns to a file for other tools.

        Embeddings are read in blocks, so that they need not fit in memory, and the file appears
        when it is complete.

        Parameters
        ----------
        path : path
            Missing folders are created.
        format : {"npy", "npz", "parquet", "csv", "hf"}, optional
            Default: by the ending of `path`. ``"npy"`` is the matrix, with the columns in a CSV
            file beside it, ``x.rows.csv``; ``"npz"`` holds ``X``, ``y`` (codes), ``classes``,
            ``ids``, ``paths`` and further columns, without pickled objects; ``"parquet"`` (extra
            ``parquet``) has a column ``embedding`` of lists of a fixed size, and the key in its
            metadata; ``"csv"`` has columns ``f0``, ``f1``, ...; ``"hf"`` is a folder for
            `datasets.load_from_disk` (extra ``datasets``), with labels as a ClassLabel.
        overwrite : bool
            Replace an existing file, or a folder that holds nothing but a saved data set.

        Returns
        -------
        list of Path
            What was written.

        Raises
        ------
        InvalidRequest
            If the path exists, its ending does not say the format, or a column of the data set is
            named as one of the file's own.
        MissingExtra
            If the package that writes the format is not installed.
        StoreWriteError, StoreError
            If the system refuses; what was there before is unchanged then.

        Examples
        --------
        >>> import featcache, numpy, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file, = featcache.extract("pocket").export(f"{folder}/dogs.npz")
        ...     numpy.load(file)["X"].shape
        (200, 256)
        """
        chosen = export_format(path, format)
        optional = {
            "view": self.views if self.views.any() else None,
            "label": self.labels,
            "split": self.parts,
        }
        columns = {"path": self.paths, "id": self.ids} | optional
        labelled = self.y is not None and self.classes is not None
        rows = ExportedRows.of(
            self.X, columns, self.attributes, self.boxes,
            self.y if labelled else None, self.classes,
            spec_metadata(self.spec.key, self.spec.components()),
        )  # fmt: skip
        return export_rows(rows, path, chosen, overwrite=overwrite)

    def to_frame(self, *, embeddings: bool = False) -> Any:
        """Return a pandas DataFrame with one row per row of X.

        Labels that were given as a Categorical are a Categorical again, in the same order.

        Parameters
        ----------
        embeddings : bool
            Add the embeddings, in columns ``f0`` to ``f<d-1>``; reads all rows.

        Returns
        -------
        pandas.DataFrame
            Columns ``path`` and ``id``; ``view`` if there are several; ``label``, ``split`` and
            ``box`` if the data have them; then those of `attributes`.

        Raises
        ------
        MissingExtra
            If pandas is not installed.
        InvalidRequest
            If an attribute has the name of one of these columns, or of an embedding's.
        """
        return make_frame(self, embeddings=embeddings)


def _as_integers(codes: NDArray[Any]) -> NDArray[Any]:
    """Return codes as int64 if no row is unlabelled."""
    return codes if np.isnan(codes).any() else codes.astype(np.int64)
