"""Drawing of a breed in a scene, with Pillow and NumPy."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .breeds import COATS, Breed, Scene

Point = tuple[float, float]
Colour = tuple[int, int, int]

_GROUND: dict[str, tuple[Colour, Colour]] = {
    "meadow": ((150, 190, 225), (96, 138, 62)),
    "snow": ((196, 208, 222), (232, 236, 242)),
    "beach": ((140, 190, 214), (214, 194, 150)),
    "room": ((200, 178, 150), (128, 84, 54)),
    "street": ((158, 152, 150), (104, 102, 104)),
    "wood": ((70, 96, 62), (92, 74, 50)),
}


def draw(breed: Breed, scene: Scene, width: int, height: int) -> Image.Image:
    """Draw an image of one dog.

    Parameters
    ----------
    breed : Breed
    scene : Scene
    width, height : int
        In pixels.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    generator = np.random.default_rng(scene.seed)
    picture = _background(scene, width, height, generator)
    dog = _Dog(breed, scene, width, height, generator)
    dog.draw()
    shadow = ImageChops.offset(dog.mask, 0, max(1, height // 60))
    shadow = shadow.point([value // 4 for value in range(256)])
    picture.paste((20, 20, 20), mask=shadow)
    picture.paste(dog.paint, mask=dog.mask.filter(ImageFilter.GaussianBlur(0.6)))
    if scene.blur > 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(scene.blur * width / 400))
    return _lit(picture, scene, generator)


def _background(
    scene: Scene, width: int, height: int, generator: np.random.Generator
) -> Image.Image:
    above, below = (np.array(c, float) for c in _GROUND[scene.background])
    above = np.clip(above + generator.normal(0, 22, 3), 0, 255)
    below = np.clip(below + generator.normal(0, 22, 3), 0, 255)
    horizon = generator.uniform(0.3, 0.65)
    y = np.linspace(0, 1, height)[:, None, None]
    far = above * (0.8 + 0.4 * y)
    near = below * (1.15 - 0.4 * (y - horizon))
    rows = np.where(y < horizon, far, near)
    canvas = np.broadcast_to(rows, (height, width, 3)).copy()
    canvas += _clouds(generator, width, height)[..., None] * 26
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    brush = ImageDraw.Draw(picture)
    for _ in range(int(generator.integers(4, 14))):  # bushes, stones, furniture
        x, base = generator.uniform(0, width), generator.uniform(horizon * 0.8, 1.0) * height
        w, h = generator.uniform(0.03, 0.2) * width, generator.uniform(0.03, 0.3) * height
        colour = tuple(
            int(c)
            for c in np.clip(
                generator.choice([0.6, 0.8, 1.2]) * below + generator.normal(0, 30, 3), 0, 255
            )
        )
        box = (x - w / 2, base - h, x + w / 2, base)
        if generator.random() < 0.5:
            brush.ellipse(box, fill=colour)
        else:
            brush.rectangle(box, fill=colour)
    return picture


def _clouds(generator: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    coarse = generator.normal(0, 1, (7, 9))
    image = Image.fromarray(coarse.astype(np.float32)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.asarray(image, np.float64)


def _lit(picture: Image.Image, scene: Scene, generator: np.random.Generator) -> Image.Image:
    pixels = np.asarray(picture, np.float32)
    tint = 1 + scene.warmth * np.array([0.16, 0.0, -0.2], np.float32)
    pixels = pixels * (scene.light * tint)
    pixels += generator.normal(0, 5, pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class _Dog:
    """A dog on a layer of its own: its colours in `paint`, its outline in `mask`."""

    def __init__(
        self, breed: Breed, scene: Scene, width: int, height: int, generator: np.random.Generator
    ) -> None:
        self.breed, self.scene, self.generator = breed, scene, generator
        self.unit = scene.size * width
        tall = breed.leg + breed.depth + breed.neck + breed.head
        self.unit = min(self.unit, 0.86 * height / tall)  # so that the whole dog is visible
        reach = 0.5 * width - 0.95 * self.unit
        self.centre = (
            width / 2 + scene.x * max(0.0, reach),
            height * 0.95 - self.unit * (breed.leg + breed.depth / 2)
            - (scene.y + 1) / 2 * max(0.0, height * 0.9 - self.unit * tall),
        )  # fmt: skip
        self.paint = Image.new("RGB", (width, height))
        self.mask = Image.new("L", (width, height))
        self._brushes = (ImageDraw.Draw(self.paint), ImageDraw.Draw(self.mask))
        self.coat = self._varied(COATS[breed.coat])
        self.second = self._varied(COATS[breed.second_coat])

    def _varied(self, colour: Colour) -> Colour:
        values = np.clip(np.array(colour) + self.generator.normal(0, 9, 3), 5, 250)
        return int(values[0]), int(values[1]), int(values[2])

    def _at(self, x: float, y: float) -> Point:
        c, s = math.cos(self.scene.tilt), math.sin(self.scene.tilt)
        x, y = c * x - s * y, s * x + c * y
        return (
            self.centre[0] + self.scene.facing * x * self.unit,
            self.centre[1] + y * self.unit,
        )

    def _polygon(self, points: list[Point], colour: Colour) -> None:
        where = [self._at(*point) for point in points]
        self._brushes[0].polygon(where, fill=colour)
        self._brushes[1].polygon(where, fill=255)

    def _ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, turn: float = 0.0
    ) -> None:
        c, s = math.cos(turn), math.sin(turn)
        steps = [2 * math.pi * i / 40 for i in range(40)]
        ring = [(rx * math.cos(a), ry * math.sin(a)) for a in steps]
        self._polygon([(x + c * u - s * v, y + s * u + c * v) for u, v in ring], colour)

    def _limb(self, points: list[Point], widths: list[float], colour: Colour) -> None:
        for (p, q), (a, b) in zip(pairwise(points), pairwise(widths), strict=True):
            length = math.hypot(q[0] - p[0], q[1] - p[1]) or 1e-6
            nx, ny = (p[1] - q[1]) / length, (q[0] - p[0]) / length
            side = [(p[0] + nx * a, p[1] + ny * a), (q[0] + nx * b, q[1] + ny * b),
                    (q[0] - nx * b, q[1] - ny * b), (p[0] - nx * a, p[1] - ny * a)]  # fmt: skip
            self._polygon(side, colour)
        for (x, y), w in zip(points, widths, strict=True):
            self._ellipse(x, y, w, w, colour)

    def draw(self) -> None:
        """Draw all parts, the farthest first."""
        far = _darker(self.coat, 0.72)
        self._legs(far, offset=0.06)
        self._tail()
        self._body()
        self._legs(self.coat, offset=0.0)
        self._pattern()
        self._head()
        self._fur()

    def _legs(self, colour: Colour, offset: float) -> None:
        breed, swing = self.breed, 0.12 * self.scene.stride * (1 if offset else -1)
        foot = self.second if breed.pattern == "socks" else colour
        top, bottom = breed.depth * 0.2, breed.depth / 2 + breed.leg
        for x, turn in ((-0.36 + offset, swing), (0.34 + offset, -swing)):
            knee = (x + turn * 0.5 - 0.03, (top + bottom) / 2)
            ankle = (x + turn, bottom - 0.05)
            thick = 0.055 + 0.09 * breed.depth
            self._limb([(x, top), knee, ankle], [thick, thick * 0.7, thick * 0.55], colour)
            half = ((knee[0] + ankle[0]) / 2, (knee[1] + ankle[1]) / 2)
            self._limb([half, ankle], [thick * 0.62, thick * 0.56], foot)
            self._ellipse(ankle[0] + 0.04, bottom - 0.03, 0.085, 0.045, foot)

    def _body(self) -> None:
        depth = self.breed.depth
        tuck = 0.5 - 0.25 * (self.breed.leg - 0.22)  # long-legged breeds have a narrow waist
        self._ellipse(0.2, 0.0, 0.34, depth / 2, self.coat)
        self._ellipse(-0.26, -0.02, 0.27, depth * tuck * 0.88, self.coat)
        top = [
            (-0.3, -depth * 0.42),
            (0.2, -depth / 2),
            (0.25, depth * 0.45),
            (-0.3, depth * tuck * 0.7),
        ]
        self._polygon(top, self.coat)

    def _tail(self) -> None:
        breed = self.breed
        length = breed.tail_length * (0.25 if breed.tail == "stub" else 1)
        curl = {"straight": 0.3, "curled": 2.9, "bushy": 0.8, "stub": 0.1}[breed.tail]
        thick = {"bushy": 0.11, "stub": 0.06}.get(breed.tail, 0.045)
        angle = math.pi * 0.86 + 0.2 * self.scene.stride
        x, y = -0.48, -breed.depth * 0.28
        points, widths = [(x, y)], [thick * 0.7]
        for i in range(8):
            x, y = x + length / 8 * math.cos(angle), y - length / 8 * math.sin(angle)
            angle -= curl / 8 * 1.6
            points.append((x, y))
            widths.append(thick * (1.0 if i < 5 else 0.7))
        self._limb(points, widths, self.coat)

    def _pattern(self) -> None:
        """Paint the second coat inside the outline drawn so far."""
        outline = self.mask.copy()
        base = self.paint.copy()
        kind, depth, draw = self.breed.pattern, self.breed.depth, self.generator
        if kind == "saddle":
            self._ellipse(-0.05, -depth * 0.34, 0.36, depth * 0.36, self.second)
        elif kind == "belly":
            self._ellipse(0.05, depth * 0.42, 0.5, depth * 0.3, self.second)
        elif kind in ("patches", "spots"):
            count, low, high = (5, 0.07, 0.17) if kind == "patches" else (46, 0.014, 0.034)
            for _ in range(count):
                x, y = draw.uniform(-0.5, 0.5), draw.uniform(-depth / 2, depth / 2 + 0.1)
                r = draw.uniform(low, high)
                self._ellipse(x, y, r, r * draw.uniform(0.7, 1.2), self.second)
        elif kind == "stripes":
            for x in np.arange(-0.5, 0.52, 0.075).tolist():
                lean = draw.uniform(-0.05, 0.05)
                line = [(x, -depth / 2), (x + lean, 0.0), (x + 2 * lean, depth / 2)]
                self._limb(line, [0.012, 0.016, 0.008], self.second)
        self.paint = Image.composite(self.paint, base, outline)
        self.mask = outline
        self._brushes = (ImageDraw.Draw(self.paint), ImageDraw.Draw(self.mask))

    def _head(self) -> None:
        breed, turn = self.breed, self.scene.head_tilt
        neck = (0.46 + breed.neck * 0.7, -breed.depth * 0.3 - breed.neck)
        self._limb(
            [(0.36, -breed.depth * 0.12), neck], [breed.depth * 0.36, breed.head * 0.33], self.coat
        )
        r = breed.head / 2
        hx, hy = neck[0] + 0.04, neck[1] - r * 0.35
        face = self.second if breed.pattern in ("mask", "socks") else self.coat
        c, s = math.cos(turn), math.sin(turn)
        tip = (hx + c * (r + breed.muzzle) - s * 0.03, hy + s * (r + breed.muzzle) + c * r * 0.35)
        root = (hx + c * r * 0.4, hy + s * r * 0.4 + r * 0.25)
        self._ear(hx - r * 0.3, hy, r, _darker(self.coat, 0.7), -0.07)
        self._ellipse(hx, hy, r * 1.05, r * 0.92, self.coat)
        self._limb([root, tip], [r * 0.62, breed.muzzle_depth * 0.5], face)
        self._ellipse(tip[0] + 0.02, tip[1] - breed.muzzle_depth * 0.25, 0.036, 0.03, (22, 20, 22))
        self._ellipse(hx + r * 0.42, hy - r * 0.22, 0.03, 0.033, (18, 14, 12))
        self._ellipse(hx + r * 0.45, hy - r * 0.27, 0.009, 0.009, (240, 240, 240))
        self._ear(hx - r * 0.3, hy, r, _darker(self.coat, 0.86), 0.0)

    def _ear(self, x: float, y: float, r: float, colour: Colour, shift: float) -> None:
        size, x = self.breed.ear_size, x + shift
        top = y - r * 0.6
        if self.breed.ear == "pointed":
            self._polygon(
                [(x - 0.09, top + 0.06), (x - 0.02, top - size), (x + 0.11, top + 0.03)], colour
            )
        elif self.breed.ear == "folded":
            self._polygon(
                [(x - 0.08, top + 0.05), (x, top - size * 0.5), (x + 0.09, top + 0.02)], colour
            )
            flap = [
                (x - 0.04, top - size * 0.3),
                (x + 0.02, top - size * 0.5),
                (x + 0.15, top + size * 0.15),
            ]
            self._polygon(flap, _darker(colour, 0.85))
        elif self.breed.ear == "hanging":
            self._ellipse(x - 0.03, top + size * 0.75, 0.08, size * 0.8, colour, 0.12)
        else:
            self._ellipse(x, top, size * 0.5, size * 0.5, colour)

    def _fur(self) -> None:
        """Draw hairs across the outline; none for short fur."""
        length = self.scene.fur_length * self.unit
        if length < 1.5:
            return
        mask = np.asarray(self.mask) > 127
        pixels = np.asarray(self.paint)
        rows, columns = np.nonzero(mask)
        if not len(rows):
            return
        count = int(min(900, 140 + 6000 * self.scene.fur_length))
        chosen = self.generator.integers(len(rows), size=count)
        downwards = np.array([-0.5 * self.scene.facing, 0.85])
        drift = self.generator.normal(0, 0.35, (count, 2)) + downwards
        shade = self.generator.uniform(0.78, 1.16, count)
        thick = max(1, int(self.unit / 90))
        for i, (dx, dy) in enumerate(drift):
            y, x = int(rows[chosen[i]]), int(columns[chosen[i]])
            colour = _darker(tuple(int(v) for v in pixels[y, x]), float(shade[i]))
            line = (x, y, x + dx * length, y + dy * length)
            self._brushes[0].line(line, fill=colour, width=thick)
            self._brushes[1].line(line, fill=255, width=thick)


def _darker(colour: Any, factor: float) -> Colour:
    red, green, blue = (max(0, min(255, int(v * factor))) for v in colour)
    return red, green, blue
