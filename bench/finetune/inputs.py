"""What a fine-tuned network reads in training: pixels, or stored outputs of its frozen part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import Features
from featcache.toolkit import RowDtype, View

from ..contenders.view_rows import ViewRows
from ..splits import Images
from .boundary import Boundary
from .pixels import Pixels

# Returns the inputs of positions, for the number of an epoch; None for validation.
Reader = Callable[[NDArray[Any], int | None], NDArray[Any]]


class Inputs(ABC):
    """The images of a comparison, as a network in training reads them.

    Attributes
    ----------
    unusable : mapping of str to str
        Reason by example id, of the images that cannot be used.
    key : str or None
        Key of the store of the images themselves, without augmentation; None if nothing is stored.
    """

    unusable: Mapping[str, str]
    key: str | None = None

    def prepare_views(self, images: Images, progress: bool | None) -> None:
        """Compute the augmented views of training images, where they are stored."""
        return

    @abstractmethod
    def read(self, ids: Sequence[str], view: int) -> NDArray[np.float32]:
        """Return the inputs of some images, float32, in that order.

        Parameters
        ----------
        ids : sequence of str
            Example ids.
        view : int
            Position in the list of views; 0 is the image without augmentation.
        """

    def reader(self, ids: Sequence[str], n_views: int) -> Reader:
        """Return a function that reads the inputs of positions among the ids for an epoch."""

        def read(rows: NDArray[Any], epoch: int | None) -> NDArray[Any]:
            chosen = [str(ids[i]) for i in rows]
            return self.read(chosen, 0 if epoch is None else epoch % n_views)

        return read

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Wall time of computing the inputs, even if that was in an earlier run."""

    @property
    @abstractmethod
    def disk_bytes(self) -> int:
        """Size on disk."""

    @property
    @abstractmethod
    def computed_now(self) -> int:
        """Number of stored rows that were computed in this run."""


class PixelInputs(Inputs):
    """Decoded pixels, (b, h, w, 3), 0 to 255; views are made when they are read.

    Parameters
    ----------
    pixels : Pixels
    views : sequence of View
    """

    def __init__(self, pixels: Pixels, views: Sequence[View]) -> None:
        self._pixels, self._views = pixels, views
        self.unusable = dict(pixels.unusable)

    def read(self, ids: Sequence[str], view: int) -> NDArray[np.float32]:
        """Return pixels."""
        chosen = self._views[view]
        pixels = self._pixels.take(list(ids))
        if not chosen.is_plain:
            pixels = np.stack([chosen.apply(p, i) for p, i in zip(pixels, ids, strict=True)])
        return pixels.astype(np.float32)

    @property
    def seconds(self) -> float:
        """Wall time of decoding."""
        return self._pixels.seconds

    @property
    def disk_bytes(self) -> int:
        """Size of the decoded pixels."""
        return int(self._pixels.array.nbytes)

    @property
    def computed_now(self) -> int:
        """Return 0: nothing is stored."""
        return 0


class StoredInputs(Inputs):
    """Outputs of the boundary layer, (b, *shape), read from the store batch by batch.

    Parameters
    ----------
    backbone : str or keras.Model
    boundary : Boundary
    options : mapping
        Arguments of `featcache.extract` for the outputs of the layer: `boundary_options`.
    views : mapping
        Its arguments ``views``, ``augmentation`` and ``random_state``.
    """

    def __init__(
        self,
        backbone: Any,
        boundary: Boundary,
        options: Mapping[str, Any],
        views: Mapping[str, Any],
    ) -> None:
        self._backbone, self.boundary, self._views = backbone, boundary, views
        self._options = dict(options)
        self._plain: Features | None = None
        self._augmented: ViewRows | None = None
        self._n_computed = 0

    def extract(self, images: Images, progress: bool | None) -> None:
        """Compute the outputs for all images, without augmentation, unless they are stored."""
        self._plain = self._extract(images, progress)
        self.key = self._plain.spec.key
        self._rows = {image_id: row for row, image_id in enumerate(self._plain.example_ids)}
        self.unusable = {images.ids[b.position]: b.reason for b in self._plain.quarantined}

    def prepare_views(self, images: Images, progress: bool | None) -> None:
        """Compute the outputs for the views of training images unless they are stored."""
        if self._views["views"] > 1:
            self._augmented = ViewRows(self._extract(images, progress, **self._views))

    def read(self, ids: Sequence[str], view: int) -> NDArray[np.float32]:
        """Return rows of the store in the shape of the layer's output."""
        if view == 0:
            return self._shaped(self._plain_rows(ids))
        assert self._augmented is not None  # prepare_views() was called
        return self._shaped(self._augmented.read(ids, view, self._plain_rows))

    def _plain_rows(self, ids: Sequence[str]) -> NDArray[np.float32]:
        assert self._plain is not None  # extract() was called
        return self._plain.X[[self._rows[i] for i in ids]]

    def _shaped(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows.reshape(-1, *self.boundary.shape)

    @property
    def seconds(self) -> float:
        """Wall time of computing all rows that training reads."""
        total = 0.0
        if self._plain is not None:
            total += self._plain.summary.seconds_per_image * len(self._plain)
        if self._augmented is not None and self._plain is not None:
            several, alone = self._augmented.features.summary, self._plain.summary
            total += (several.seconds_per_image - alone.seconds_per_image) * self._augmented.count
        return total

    @property
    def disk_bytes(self) -> int:
        """Size of the rows that training reads."""
        augmented = None if self._augmented is None else self._augmented.features
        parts = [part for part in (self._plain, augmented) if part is not None]
        return sum(part.stored_bytes for part in parts)

    @property
    def computed_now(self) -> int:
        """Number of rows that were computed in this run."""
        return self._n_computed

    def _extract(self, images: Images, progress: bool | None, **views: Any) -> Features:
        features = featcache.extract(
            self._backbone, images.dataset(), progress=progress, **self._options, **views
        )
        self._n_computed += features.summary.computed
        return features


def boundary_options(
    boundary: Boundary, options: Mapping[str, Any], dtype: RowDtype
) -> dict[str, Any]:
    """Return the arguments of `featcache.extract` for the outputs of a boundary layer.

    Parameters
    ----------
    boundary : Boundary
    options : mapping
        Those for the backbone, without the layer.
    dtype : {"float32", "float16"}
        Number format in which the outputs are stored.
    """
    options = {**options, "row_dtype": dtype}
    if boundary.is_output:
        return options  # the last layer may be the pooling that these options name
    pooling = "flat" if len(boundary.shape) > 1 else None
    return {**options, "layer": boundary.layer, "pooling": pooling}
