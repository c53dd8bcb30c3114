"""`Transformable`: the methods of `Features` that transform rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

from ...errors import InvalidRequest
from ...store.lazy_rows import LazyRows
from .fit import fit_l2, fit_pca, fit_standardize
from .spec import DerivedSpec, FeatureSpec
from .steps import RowStep

FeaturesT = TypeVar("FeaturesT", bound="Transformable")


class Transformable(ABC):
    """Base class of `Features`: steps that transform its rows, fitted on them and recorded.

    Each method returns features whose rows are transformed when they are read. What `standardize`
    and `pca` compute from the rows is part of the features, and a bundle applies it to new photos.
    Fit them on training rows alone, and give the others the same steps with `transformed_like`:

    >>> import featcache
    >>> train, test = featcache.extract("pocket").split()
    >>> train = train.standardize().pca(16).l2()
    >>> test = test.transformed_like(train)
    >>> test
    <Features 40 x 16 of pocket/embedding > standardize > pca(16) > l2, 10 classes>
    """

    X: LazyRows
    spec: FeatureSpec

    @abstractmethod
    def with_step(self: FeaturesT, step: RowStep) -> FeaturesT:
        """Return the features with a step applied to their rows when they are read."""

    @property
    @abstractmethod
    def origin(self) -> str:
        """Human-readable name of backbones, layers and steps."""

    @property
    def steps(self) -> tuple[RowStep, ...]:
        """The steps that were applied to the stored rows, in their order."""
        return self.spec.steps if isinstance(self.spec, DerivedSpec) else ()

    def l2(self: FeaturesT) -> FeaturesT:
        """Return features whose rows have Euclidean length 1; rows of zeros stay as they are.

        Returns
        -------
        Features
            Nothing is read yet.
        """
        return self.with_step(fit_l2(self.X))

    def standardize(self: FeaturesT) -> FeaturesT:
        """Return features whose columns have mean 0 and standard deviation 1 over these rows.

        Returns
        -------
        Features
            Constant columns become 0. All rows are read once, in blocks, to fit the step.

        Raises
        ------
        InvalidRequest
            If there are no rows.
        """
        return self.with_step(fit_standardize(self.X))

    def pca(self: FeaturesT, n_components: int) -> FeaturesT:
        """Return features projected on the first principal components of these rows.

        Parameters
        ----------
        n_components : int
            Number of components, at most the number of rows and of columns.

        Returns
        -------
        Features
            Values and signs are those of `sklearn.decomposition.PCA`. All rows are read, in
            blocks, to fit the step.

        Raises
        ------
        InvalidRequest
            If `n_components` is out of range, or the computation would take more than 2 GiB.
        """
        return self.with_step(fit_pca(self.X, n_components))

    def transformed_like(self: FeaturesT, fitted: Transformable) -> FeaturesT:
        """Return these features with the steps of others, as they were fitted there.

        Parameters
        ----------
        fitted : Features
            Of the same backbones, usually the training part. Steps that these features have
            already must be its first steps.

        Returns
        -------
        Features
            Nothing is read yet, and nothing is fitted.

        Raises
        ------
        InvalidRequest
            If the features are of other backbones, or have steps of their own.
        """
        own, other = (DerivedSpec.of(one.spec, one.X.shape[1]) for one in (self, fitted))
        done = len(own.steps)
        if (own.parts, own.widths) != (other.parts, other.widths):
            raise InvalidRequest(
                f"transformed_like() needs features of the same backbones and settings, not "
                f"{self.origin} and {fitted.origin}.",
                received=other.key,
            )
        if own.steps != other.steps[:done]:
            raise InvalidRequest(
                f"These features have other steps ({self.origin}) than those to follow "
                f"({fitted.origin}), or steps fitted on other rows. Apply the steps to features "
                "without steps, such as the other part of a split.",
                received=own.key,
            )
        found = self
        for step in other.steps[done:]:
            found = found.with_step(step)
        return found
