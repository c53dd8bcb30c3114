"""`FeatureExtractor`: embeddings as a step of a scikit-learn pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._io import cache_dirs
from .._io.choices import check_choice
from .._io.process_lock import process_lock
from .._io.wording import format_count
from ..backbones.keras_types import BackboneLike
from ..backbones.preprocessing import Rule
from ..backbones.request import BackboneOptions, make_request
from ..backbones.resolve import resolve
from ..backbones.spec import EngineName, Pooling, Precision
from ..backbones.weights import WeightsLike
from ..data.dataset import Dataset
from ..data.load import are_containers
from ..data.memory import is_array
from ..errors import DatasetError, NoUsableImages, UnusableImages
from ..hdf5.row_dtype import RowDtype
from ..images.decode import Resize
from .extract import extract
from .summary import Quarantined

OnBadImages: TypeAlias = Literal["error", "nan"]
_LOCK = "transform.lock"
_MAX_NAMED = 5


class FeatureExtractor(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Transform images to embeddings, as a step of a scikit-learn pipeline.

    Embeddings come from the store and are computed if they are missing: in a search or a
    cross-validation every image is computed once, also with several processes.

    Parameters
    ----------
    backbone : str, path or keras.Model
        As for `featcache.extract`. With several processes a name or the path of a ``.keras``
        file is best: a model is copied to each of them.
    layer, pooling, image_size, resize, weights, preprocessing, precision, row_dtype : optional
        As for `featcache.extract`.
    engine : optional
        As for `featcache.extract`.
    value_range : (float, float), optional
        The values of black and white in arrays of floats.
    on_bad_images : {"error", "nan"}
        What to do with an image that cannot be used: raise `UnusableImages`, or give it a row of
        NaN, for a classifier or an imputer that accepts those.
    batch_size, workers, cache_dir, progress : optional
        As for `featcache.extract`, but without progress bars by default.

    Attributes
    ----------
    n_features_in_ : int
        1: the column of images. Only defined after `fit`, and not for a list.
    feature_names_in_ : ndarray of str
        The name of that column, for a DataFrame.

    Notes
    -----
    `fit` learns nothing from the images, and `transform` works without it.

    Examples
    --------
    >>> import numpy
    >>> X = numpy.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), numpy.uint8)
    >>> FeatureExtractor("pocket").fit_transform(X).shape
    (5, 256)
    """

    def __init__(
        self,
        backbone: BackboneLike,
        *,
        layer: str | int | None = None,
        pooling: Pooling | None = None,
        image_size: int | tuple[int, int] | None = None,
        resize: Resize | None = None,
        weights: WeightsLike = "auto",
        preprocessing: Rule | None = None,
        precision: Precision = "float32",
        row_dtype: RowDtype = "float32",
        engine: EngineName = "auto",
        value_range: tuple[float, float] | None = None,
        on_bad_images: OnBadImages = "error",
        batch_size: int | None = None,
        workers: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: bool | None = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling: Pooling | None = pooling
        self.image_size = image_size
        self.resize: Resize | None = resize
        self.weights = weights
        self.preprocessing: Rule | None = preprocessing
        self.precision: Precision = precision
        self.row_dtype: RowDtype = row_dtype
        self.engine: EngineName = engine
        self.value_range = value_range
        self.on_bad_images = on_bad_images
        self.batch_size = batch_size
        self.workers = workers
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Check the arguments and the form of the images; learn nothing from them.

        Parameters
        ----------
        X : as for `transform`
        y : ignored

        Returns
        -------
        FeatureExtractor
            Itself.

        Raises
        ------
        UnknownBackbone, InvalidRequest
            If a parameter is not accepted.
        DatasetError
            If `X` is not one column of images.
        """
        check_choice("on_bad_images", self.on_bad_images, ("error", "nan"))
        make_request(self.backbone, self._options())
        column_of(X)
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        if getattr(X, "ndim", 1) == 2:
            self.n_features_in_ = 1
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.asarray([str(name) for name in X.columns], object)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the embeddings of images.

        Parameters
        ----------
        X : array-like of n images
            Paths, PIL images, arrays or bytes: a list, an array, a column of a DataFrame, a
            DataFrame or array with one column; or an array (n, h, w, 3) of images; or a
            `featcache.Dataset`.

        Returns
        -------
        ndarray (n, d), float32
            Row i belongs to ``X[i]``. With ``set_output(transform="pandas")`` a DataFrame.

        Raises
        ------
        UnusableImages
            If an image cannot be used and `on_bad_images` is ``"error"``; names the images.
        DatasetError
            If `X` is not one column of images.
        """
        check_choice("on_bad_images", self.on_bad_images, ("error", "nan"))
        images = column_of(X)
        names = getattr(self, "feature_names_in_", None)
        if names is not None and hasattr(X, "columns") and list(map(str, X.columns)) != [*names]:
            raise DatasetError(
                f"The column is called {X.columns[0]!r}, and was {names[0]!r} in `fit`.",
                received=X.columns[0],
                expected=names[0],
            )
        if not len(images):
            return np.empty((0, self._n_features_out), np.float32)
        return self._embed(images)

    def _embed(self, images: Any) -> NDArray[np.float32]:
        lock = cache_dirs.index_folder(cache_dirs.cache_folder(self.cache_dir)) / _LOCK
        try:
            # The processes of a search would compute the images that their folds share twice.
            with process_lock(lock, "another process that computes embeddings"):
                features = extract(
                    self.backbone, images, **vars(self._options()),
                    engine=self.engine, value_range=self.value_range, on_conflict="keep",
                    batch_size=self.batch_size, workers=self.workers, cache_dir=self.cache_dir,
                    progress=self.progress,
                )  # fmt: skip
        except NoUsableImages as error:
            if self.on_bad_images == "nan":
                return np.full((len(images), self._n_features_out), np.nan, np.float32)
            raise _unusable(error.quarantined, len(images)) from error
        if features.quarantined and self.on_bad_images == "error":
            raise _unusable(features.quarantined, len(images))
        rows = np.full((len(images), features.X.shape[1]), np.nan, np.float32)
        rows[features.positions] = features.X[:]
        return rows

    def _options(self) -> BackboneOptions:
        return BackboneOptions(
            layer=self.layer, pooling=self.pooling, image_size=self.image_size,
            resize=self.resize, weights=self.weights, preprocessing=self.preprocessing,
            precision=self.precision, row_dtype=self.row_dtype,
        )  # fmt: skip

    @property
    def _n_features_out(self) -> int:
        """Length of an embedding, for the names of the columns."""
        request = make_request(self.backbone, self._options())
        cache = cache_dirs.cache_folder(self.cache_dir)
        return resolve(request, cache_dirs.weights_folder(cache)).width

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def column_of(X: Any) -> Any:
    """Return images as a list, an array (n, h, w, c) or a `Dataset`.

    Raises
    ------
    DatasetError
        If they are not one column of images, or archives or Parquet files, whose images are
        others in number than the items.
    """
    if isinstance(X, Dataset):
        return X
    images = _one_column(X)
    if isinstance(images, list) and are_containers(images):
        raise DatasetError(
            f"{os.fspath(images[0])!r} holds several images, but each item of X has one row. Pass "
            "a data set: featcache.load_dataset(paths), or the paths of the images.",
            received=images[0],
        )
    return images


def _one_column(X: Any) -> Any:
    if isinstance(X, (str, bytes, os.PathLike)) or not (
        isinstance(X, Sequence) or hasattr(X, "__array__")
    ):
        raise DatasetError(
            f"Expected n images as a list, an array or a column of a table, not "
            f"{type(X).__name__}. One image is a list of one: [x].",
            received=type(X).__name__,
        )
    if not is_array(X) and not hasattr(X, "columns"):
        return list(X)
    array = np.asarray(X)
    if array.ndim == 4:
        return array
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0].tolist()
    if array.ndim != 1:
        columns: Any = getattr(X, "columns", None)
        names = "" if columns is None else f" with the columns {list(columns)}"
        raise DatasetError(
            f"Expected one column of images, or an array (n, height, width, 3), not the shape "
            f"{array.shape}{names}. Select the column with the images: frame['path'], or a "
            "ColumnTransformer.",
            received=array.shape,
        )
    return array.tolist()


def _unusable(quarantined: Sequence[Any], total: int) -> UnusableImages:
    """Return the error that names images, at most five of them."""
    bad: Sequence[Quarantined] = quarantined
    named = "; ".join(f"{one.path!r} {one.reason}" for one in bad[:_MAX_NAMED])
    more = f"; and {len(bad) - _MAX_NAMED:,} more" if len(bad) > _MAX_NAMED else ""
    return UnusableImages(
        f"{len(bad):,} of {format_count(total, 'image')} cannot be used: {named}{more}. Leave "
        "them out together with their labels, or pass on_bad_images='nan' for rows of NaN.",
        quarantined=bad,
    )
