"""Parameters of drawn breeds, and of the scenes that vary between images of a breed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COATS = {
    "black": (38, 34, 36),
    "chocolate": (84, 54, 38),
    "red": (150, 78, 40),
    "fawn": (196, 152, 104),
    "gold": (206, 160, 78),
    "grey": (122, 122, 128),
    "cream": (230, 214, 186),
    "white": (240, 238, 232),
}
PATTERNS = ("solid", "saddle", "patches", "spots", "mask", "belly", "stripes", "socks")
EARS = ("pointed", "folded", "hanging", "round")
TAILS = ("straight", "curled", "bushy", "stub")
FUR = ("short", "medium", "long")
BACKGROUNDS = ("meadow", "snow", "beach", "room", "street", "wood")

_FIRST = (
    "al", "bra", "cor", "dun", "el", "fen", "gar", "hol", "is", "jor",
    "kel", "lun", "mar", "nor", "or", "pel", "quin", "ros", "sel", "tor",
)  # fmt: skip
_SECOND = ("bek", "da", "fin", "go", "lin", "mar", "nes", "ro", "sk", "ta", "ven", "wick")
_KINDS = (
    "hound", "terrier", "spaniel", "mastiff", "spitz", "pointer", "shepherd", "retriever",
)  # fmt: skip


@dataclass(frozen=True)
class Breed:
    """Appearance that all dogs of a breed share; lengths are relative to that of the body.

    Attributes
    ----------
    name : str
    leg, depth, neck : float
        Build: length of the legs, depth of the chest, length of the neck.
    head, muzzle, muzzle_depth : float
        Size of the head, length and depth of the muzzle.
    ear, ear_size : str, float
    tail, tail_length : str, float
    coat, second_coat : str
        Keys of `COATS`.
    pattern : str
    fur : str
    """

    name: str
    leg: float
    depth: float
    neck: float
    head: float
    muzzle: float
    muzzle_depth: float
    ear: str
    ear_size: float
    tail: str
    tail_length: float
    coat: str
    second_coat: str
    pattern: str
    fur: str


@dataclass(frozen=True)
class Scene:
    """Properties that vary between images of one breed.

    Attributes
    ----------
    size : float
        Length of the body as a fraction of the image width, 0.22 to 0.5.
    light : float
        Brightness, 0.5 (dusk) to 1.35 (glare).
    warmth : float
        Colour of the light, -1 (blue) to 1 (orange).
    fur_length : float
        Length of the fur relative to that of the body: the value of the breed with some variation.
    facing : int
        1 to the right, -1 to the left.
    tilt, head_tilt, stride, x, y, blur : float
        Pose and place.
    background : str
    seed : int
        Seed of all other random values.
    """

    size: float
    light: float
    warmth: float
    fur_length: float
    facing: int
    tilt: float
    head_tilt: float
    stride: float
    x: float
    y: float
    blur: float
    background: str
    seed: int


def make_breeds(count: int, seed: int) -> list[Breed]:
    """Draw breeds at random; the first n of a seed do not depend on `count`."""
    breeds: list[Breed] = []
    taken: set[str] = set()
    for number in range(count):
        generator = np.random.default_rng([seed, 1, number])
        breeds.append(_make_breed(generator, taken))
    return breeds


def _make_breed(generator: np.random.Generator, taken: set[str]) -> Breed:
    def between(low: float, high: float) -> float:
        return float(generator.uniform(low, high))

    def one_of(names: tuple[str, ...] | list[str]) -> str:
        return str(names[int(generator.integers(len(names)))])

    name = ""
    while not name or name in taken:
        name = f"{one_of(_FIRST)}{one_of(_SECOND)}_{one_of(_KINDS)}"
    taken.add(name)
    coats = list(COATS)
    coat = one_of(coats)
    second = one_of([other for other in coats if other != coat])
    return Breed(
        name=name,
        leg=between(0.22, 0.75),
        depth=between(0.3, 0.52),
        neck=between(0.08, 0.34),
        head=between(0.26, 0.4),
        muzzle=between(0.08, 0.36),
        muzzle_depth=between(0.1, 0.2),
        ear=one_of(EARS),
        ear_size=between(0.14, 0.34),
        tail=one_of(TAILS),
        tail_length=between(0.3, 0.62),
        coat=coat,
        second_coat=second,
        pattern=one_of(PATTERNS),
        fur=one_of(FUR),
    )


def make_scene(breed: Breed, seed: int, breed_number: int, image_number: int) -> Scene:
    """Draw the scene of one image at random."""
    generator = np.random.default_rng([seed, 2, breed_number, image_number])
    fur = {"short": 0.008, "medium": 0.05, "long": 0.11}[breed.fur]
    size = float(generator.uniform(0.22, 0.5))
    return Scene(
        size=size,
        light=float(generator.uniform(0.5, 1.35)),
        warmth=float(generator.uniform(-1, 1)),
        fur_length=fur * float(generator.uniform(0.7, 1.3)),
        facing=int(generator.choice([-1, 1])),
        tilt=float(generator.normal(0, 0.07)),
        head_tilt=float(generator.normal(0, 0.22)),
        stride=float(generator.uniform(-1, 1)),
        x=float(generator.uniform(-1, 1)),
        y=float(generator.uniform(-1, 1)),
        blur=float(max(0.0, generator.normal(0, 0.7))),
        background=str(generator.choice(BACKGROUNDS)),
        seed=int(generator.integers(2**31)),
    )
