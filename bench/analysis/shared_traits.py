"""How often the true and the predicted breed of an error share a trait, against chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.datasets import BreedTraits
from featcache.datasets.breed_traits import COAT_LENGTHS, COLOURS, FCI_GROUPS, SIZES

from .statistics import wilson

SHUFFLES = 9999

Floats = NDArray[np.float64]
Matrix = Floats
Values = Callable[[BreedTraits], tuple[str, ...]]

# The values of a breed, and all values in their order. Two breeds share a trait if they have a
# value in common. Breeds without a value, such as a group that no standard gives, take no part.
TRAITS: dict[str, tuple[Values, tuple[str, ...]]] = {
    "size": (lambda breed: (breed.size,), SIZES),
    "colour": (lambda breed: breed.colours, COLOURS),
    "coat length": (lambda breed: (breed.coat_length,), COAT_LENGTHS),
    "breed group": (
        lambda breed: () if breed.fci_group is None else (breed.group,), FCI_GROUPS,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SharedTrait:
    """Errors of a contender whose true and predicted breed share a trait.

    Attributes
    ----------
    trait : str
        One of `TRAITS`.
    errors : int
        Errors between breeds that have the trait.
    within : int
        Those between breeds that share it.
    fraction, low, high : float
        `within` of `errors`, with Wilson's 95 % interval.
    expected : float
        The fraction if wrong predictions were drawn at random, each breed as often as it is
        predicted.
    expected_low, expected_high : float
        95 % range of the fraction if the trait's values were shuffled among the breeds.
    p_value : float
        Two-sided, from the same shuffles.
    beyond_groups : float or None
        The same with shuffles within breed groups: small if the trait matters among breeds of
        one group as well. None for the breed group itself.
    values : list of str
        The values, and the rows and columns of `counts`.
    counts : list of list of int
        Errors by the value of the true breed (rows) and of the predicted breed (columns). An
        error between breeds with several values counts in several cells.
    """

    trait: str
    errors: int
    within: int
    fraction: float
    low: float
    high: float
    expected: float
    expected_low: float
    expected_high: float
    p_value: float
    beyond_groups: float | None
    values: list[str]
    counts: list[list[int]]


def shared_trait(
    trait: str, confusion: NDArray[np.int64], breeds: Sequence[BreedTraits], random_state: int = 0
) -> SharedTrait | None:
    """Compare the errors within a trait with chance.

    The null hypothesis of the p-value is that a trait has nothing to do with which breeds are
    confused, so that its values may as well belong to other breeds (Mantel 1967). A test that
    takes errors for independent would be wrong: one pair of breeds has many of them.

    Parameters
    ----------
    trait : str
        One of `TRAITS`.
    confusion : ndarray (k, k) of int64
        Test images by true class (rows) and prediction.
    breeds : sequence of BreedTraits
        One per class.
    random_state : int
        Seed of the shuffles.

    Returns
    -------
    SharedTrait or None
        None if there are no errors, or if all or no two breeds share the trait.
    """
    values_of, order = TRAITS[trait]
    every = [values_of(breed) for breed in breeds]
    known = [row for row, values in enumerate(every) if values]
    among = confusion[np.ix_(known, known)].astype(float)
    names = [name for name in order if any(name in values for values in every)]
    memberships = _memberships([every[row] for row in known], names)
    shares = (memberships @ memberships.T > 0).astype(float)
    wrong = among * (1 - np.eye(len(known)))
    errors = round(float(wrong.sum()))
    others = shares[~np.eye(len(known), dtype=bool)]
    if not errors or others.all() or not others.any():
        return None
    drawn = expected_errors(among)
    within, expected = round(float((wrong * shares).sum())), float((drawn * shares).sum()) / errors
    by_chance = _shuffled(among, shares, np.zeros(len(known), np.int64), random_state)
    low, high = wilson(within, errors)
    below, above = np.quantile(by_chance, [0.025, 0.975]).tolist()
    actual = within / errors - expected
    beyond_groups = None
    if trait != "breed group":
        groups = np.unique([breeds[row].group for row in known], return_inverse=True)[1]
        beyond_groups = _p_value(actual, _shuffled(among, shares, groups, random_state))
    return SharedTrait(
        trait, errors, within, within / errors, low, high, expected,
        expected_low=max(0.0, expected + below),
        expected_high=min(1.0, expected + above),
        p_value=_p_value(actual, by_chance),
        beyond_groups=beyond_groups,
        values=names,
        counts=(memberships.T @ wrong @ memberships).round().astype(int).tolist(),
    )  # fmt: skip


def expected_errors(confusion: Matrix) -> Matrix:
    """Return the expected number of errors of each pair, from the margins alone.

    A wrong prediction of an image of class c is class k with the probability q_k / (1 - q_c), where
    q_k is the fraction of images that are predicted as k.

    Parameters
    ----------
    confusion : ndarray (k, k)

    Returns
    -------
    ndarray (k, k)
        With 0 in the diagonal, and in each row the sum of that row's errors.
    """
    rates, predicted = _margins(confusion)
    return np.outer(rates, predicted) * (1 - np.eye(len(predicted)))


def _margins(confusion: Matrix) -> tuple[Floats, Floats]:
    """Return the factors of expected errors: one per true class, one per predicted class."""
    predicted = confusion.sum(axis=0)
    errors = confusion.sum(axis=1) - np.diag(confusion)
    others = predicted.sum() - predicted
    # A class that all images are predicted as has no other one to draw, and no errors.
    return errors / np.where(others > 0, others, 1), predicted


def _memberships(values: Sequence[tuple[str, ...]], names: Sequence[str]) -> Matrix:
    """Return which breed (row) has which value (column), 0 or 1."""
    table = [[float(name in row) for name in names] for row in values]
    return np.array(table).reshape(len(values), len(names))


def _shuffled(
    confusion: Matrix, shares: Matrix, strata: NDArray[np.int64], random_state: int
) -> Floats:
    """Return the fraction of errors within the trait, minus the expected one, after each shuffle.

    A shuffle gives each breed the values of a random breed of its stratum. The expected errors
    are an outer product, so that their sums take one product of matrices for all shuffles.
    """
    classes = len(strata)
    keys = np.random.default_rng(random_state).random((SHUFFLES, classes))
    owners = np.empty((SHUFFLES, classes), int)
    # The keys are below 1, so each stratum gets its own members in a new order.
    owners[:, np.argsort(strata, kind="stable")] = np.argsort(keys + strata, axis=1)
    wrong = confusion * (1 - np.eye(classes))
    truth, prediction = np.nonzero(wrong)
    within = shares[owners[:, truth], owners[:, prediction]] @ wrong[truth, prediction]
    rates, predicted = _margins(confusion)
    places = np.argsort(owners, axis=1)
    others = shares * (1 - np.eye(classes))
    expected = np.sum((rates[places] @ others) * predicted[places], axis=1)
    return np.asarray((within - expected) / wrong.sum())


def _p_value(actual: float, shuffled: Floats) -> float:
    """Return the fraction of shuffles at least as far from their mean, counting the actual one."""
    distance = abs(actual - shuffled.mean())
    # Shuffles that restore the actual table differ from it by rounding only.
    as_far = int(np.sum(np.abs(shuffled - shuffled.mean()) >= distance - 1e-12))
    return (1 + as_far) / (1 + len(shuffled))
