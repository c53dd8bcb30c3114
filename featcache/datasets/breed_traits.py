"""Facts on the classes of a data set, such as the size and the coat of each breed of dog."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, cast, get_args

from ..errors import InvalidRequest

Size = Literal["small", "medium", "large", "giant"]
CoatLength = Literal["hairless", "short", "medium", "long"]
CoatType = Literal[
    "hairless", "smooth", "feathered", "double", "silky", "wiry", "curly", "shaggy", "corded"
]
Colour = Literal["black", "white", "grey", "brown", "red", "tan", "cream", "brindle", "merle"]
SIZES: tuple[Size, ...] = get_args(Size)
COAT_LENGTHS: tuple[CoatLength, ...] = get_args(CoatLength)
COAT_TYPES: tuple[CoatType, ...] = get_args(CoatType)
COLOURS: tuple[Colour, ...] = get_args(Colour)
# Groups of the Fédération Cynologique Internationale, 1 to 10, with names shortened.
FCI_GROUPS = (
    "sheepdogs", "pinschers and molossers", "terriers", "dachshunds", "spitz and primitive",
    "scent hounds", "pointers and setters", "retrievers and spaniels", "companions and toys",
    "sighthounds",
)  # fmt: skip
NOT_RECOGNISED = "not recognised"

_TABLES = {"stanford-dogs": "stanford_dogs_traits.csv"}


@dataclass(frozen=True)
class BreedTraits:
    """Facts on a breed of dog, as its breed standard gives them.

    Attributes
    ----------
    class_name : str
        Name of the class in the data set.
    wordnet_id : str
        Such as ``"n02085620"``.
    size : {"small", "medium", "large", "giant"}
        By the middle of `height_cm`: below 36, 54 and 70 cm, and above. Breeds of 50 kg and more
        are giant as well.
    height_cm : (int, int)
        Smallest and largest height of adults at the withers.
    coat_length : {"hairless", "short", "medium", "long"}
    coat_type : str
        One of `COAT_TYPES`.
    colours : tuple of str
        The usual colours, out of `COLOURS`.
    fci_group : int or None
        Number of the group of the Fédération Cynologique Internationale; None for a breed
        without a standard of the FCI, and for wild dogs.
    note : str
        The variety that the facts are of, and other exceptions; often empty.
    """

    class_name: str
    wordnet_id: str
    size: Size
    height_cm: tuple[int, int]
    coat_length: CoatLength
    coat_type: CoatType
    colours: tuple[Colour, ...]
    fci_group: int | None
    note: str = ""

    @property
    def group(self) -> str:
        """Short name of the group of the FCI, or ``"not recognised"``."""
        return NOT_RECOGNISED if self.fci_group is None else FCI_GROUPS[self.fci_group - 1]

    def record(self) -> dict[str, Any]:
        """Return the facts as plain values: a row of a table."""
        return {
            "class_name": self.class_name,
            "wordnet_id": self.wordnet_id,
            "size": self.size,
            "height_min_cm": self.height_cm[0],
            "height_max_cm": self.height_cm[1],
            "coat_length": self.coat_length,
            "coat_type": self.coat_type,
            "colours": " ".join(self.colours),
            "fci_group": self.fci_group,
            "group": self.group,
            "note": self.note,
        }


class Traits(Mapping[str, BreedTraits]):
    """The facts on all classes of a data set, by class name.

    A name may be written with spaces or underscores and in any case; WordNet ids and the names of
    the published folders, such as ``"n02085620-Chihuahua"``, are accepted as well.

    Examples
    --------
    >>> from featcache.datasets import traits
    >>> breeds = traits("stanford-dogs")
    >>> len(breeds), breeds["Afghan hound"].coat_length, breeds["afghan_hound"].group
    (120, 'long', 'sighthounds')
    """

    def __init__(self, rows: Iterable[BreedTraits]) -> None:
        self._rows = {row.class_name: row for row in rows}
        self._known = {
            _key(name): row
            for row in self._rows.values()
            for name in (row.class_name, row.wordnet_id, f"{row.wordnet_id}-{row.class_name}")
        }

    def __getitem__(self, name: str) -> BreedTraits:
        if name not in self:
            raise KeyError(name)
        return self._known[_key(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Traits({len(self)} classes)"

    def records(self) -> list[dict[str, Any]]:
        """Return one row per class, as for ``pandas.DataFrame(traits.records())``."""
        return [row.record() for row in self._rows.values()]


def traits(name: str) -> Traits:
    """Return facts on the classes of a data set: size, coat and group of each breed.

    The data set need not be downloaded. Rules and sources are in ``stanford_dogs_traits.md``
    beside the table.

    Parameters
    ----------
    name : {"stanford-dogs"}

    Returns
    -------
    Traits
        A mapping of class names to `BreedTraits`.

    Raises
    ------
    InvalidRequest
        If there are no facts on the data set; the message lists those that have some.

    Examples
    --------
    >>> from featcache.datasets import traits
    >>> chow = traits("stanford-dogs")["Chow"]
    >>> chow.size, chow.height_cm, chow.coat_length, chow.colours[:2]
    ('medium', (46, 56), 'long', ('red', 'black'))
    """
    if name not in _TABLES:
        raise InvalidRequest(
            f"There are no traits of the classes of {name!r}; data sets with traits: "
            f"{', '.join(_TABLES)}.",
            received=name,
        )
    return _read(_TABLES[name])


def traits_of(classes: Iterable[object]) -> Traits | None:
    """Return the traits that know each of some class names, or None.

    Parameters
    ----------
    classes : iterable of object
        Such as the labels of a data set of your own. Values that are not text have no traits.

    Examples
    --------
    >>> from featcache.datasets import traits_of
    >>> traits_of(["beagle", "Great_Dane"]), traits_of(["beagle", "tabby cat"])
    (Traits(120 classes), None)
    """
    names = list(classes)
    if not names:
        return None
    return next((t for t in map(traits, _TABLES) if all(name in t for name in names)), None)


@cache
def _read(file: str) -> Traits:
    text = resources.files(__package__ or "").joinpath(file).read_text("utf-8")
    return Traits(_row(cells) for cells in csv.DictReader(text.splitlines()))


def _row(cells: Mapping[str, str]) -> BreedTraits:
    group = cells["fci_group"]
    return BreedTraits(
        class_name=cells["class_name"],
        wordnet_id=cells["wordnet_id"],
        size=cast("Size", cells["size"]),
        height_cm=(int(cells["height_min_cm"]), int(cells["height_max_cm"])),
        coat_length=cast("CoatLength", cells["coat_length"]),
        coat_type=cast("CoatType", cells["coat_type"]),
        colours=cast("tuple[Colour, ...]", tuple(cells["colours"].split())),
        fci_group=None if group == "none" else int(group),
        note=cells["note"],
    )


def _key(name: str) -> str:
    """Return a name without the differences between spellings of it."""
    return name.replace("_", " ").strip().casefold()
