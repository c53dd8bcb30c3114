"""What a fine-tuned network reads in training: pixels, or stored outputs of its frozen part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featcache
from featcache import Features
from featcache.toolkit import RowDtype, View

from ..splits import Images
from .boundary import Boundary
from .pixels import Pixels


class Inputs(ABC):
    """The images of a comparison, as a network in training reads them.

    Attributes
    ----------
    unusable : mapping of str to str
        Reason by example id, of the images that cannot be used.
    """

    unusable: Mapping[str, str]

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
        self._augmented: Features | None = None
        self._n_computed = 0

    def extract(self, images: Images, progress: bool | None) -> None:
        """Compute the outputs for all images, without augmentation, unless they are stored."""
        self._plain = self._extract(images, progress)
        self._rows = _row_numbers(self._plain)
        self.unusable = {images.ids[b.position]: b.reason for b in self._plain.quarantined}

    def prepare_views(self, images: Images, progress: bool | None) -> None:
        """Compute the outputs for the views of training images unless they are stored."""
        if self._views["views"] > 1:
            self._augmented = self._extract(images, progress, **self._views)
            self._view_rows = _row_numbers(self._augmented)

    def read(self, ids: Sequence[str], view: int) -> NDArray[np.float32]:
        """Return rows of the store in the shape of the layer's output."""
        if view == 0:
            return self._read_plain(ids)
        assert self._augmented is not None  # prepare_views() was called
        # An image has no augmented rows if the backbone gives values for one that are not finite.
        has_views = np.array([i in self._view_rows for i in ids])
        first = view * (len(self._augmented) // self._views["views"])
        rows = np.empty((len(ids), *self.boundary.shape), np.float32)
        found = [first + self._view_rows[i] for i in ids if i in self._view_rows]
        rows[has_views] = self._augmented.X[found].reshape(-1, *self.boundary.shape)
        if not has_views.all():
            rows[~has_views] = self._read_plain([i for i in ids if i not in self._view_rows])
        return rows

    def _read_plain(self, ids: Sequence[str]) -> NDArray[np.float32]:
        assert self._plain is not None  # extract() was called
        rows = self._plain.X[[self._rows[i] for i in ids]]
        return rows.reshape(-1, *self.boundary.shape)

    @property
    def seconds(self) -> float:
        """Wall time of computing all rows that training reads."""
        total = 0.0
        if self._plain is not None:
            total += self._plain.summary.seconds_per_image * len(self._plain)
        if self._augmented is not None and self._plain is not None:
            each = self._augmented.summary.seconds_per_image - self._plain.summary.seconds_per_image
            total += each * (len(self._augmented) // self._views["views"])
        return total

    @property
    def disk_bytes(self) -> int:
        """Size of the rows that training reads."""
        parts = [part for part in (self._plain, self._augmented) if part is not None]
        return sum(part.spec.row_bytes(part.X.size) for part in parts)

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


def _row_numbers(features: Features) -> dict[str, int]:
    """Return the row of each image in view 0, by its example id."""
    first = features.example_ids[: int(np.count_nonzero(features.views == 0))]
    return {image_id: row for row, image_id in enumerate(first)}
