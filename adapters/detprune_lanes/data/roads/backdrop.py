"""Everything behind the road: sky, hills, ground, trees, and objects along the road."""

import cv2
import numpy as np

from detprune_lanes.data.roads.canvas import (
    Image,
    as_image,
    clouds,
    fill,
    line,
    rectangle,
    tinted,
    vary,
)
from detprune_lanes.data.roads.style import Colour, Style
from detprune_lanes.data.roads.surface import Edges
from detprune_lanes.data.roads.view import Rows, View
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH


def behind(
    rng: np.random.Generator, view: View, edges: Edges, style: Style, light: str
) -> tuple[Image, list[tuple[float, float, float]]]:
    """Draw the frame without its road, (FRAME_HEIGHT, FRAME_WIDTH, 3).

    Returns:
        It, and the trees that may throw a shadow on the road: side (-1, 1), depth and height in metres.
    """
    image = np.empty((FRAME_HEIGHT, FRAME_WIDTH, 3), np.uint8)
    image[: view.top] = _sky(rng, view.top, style, light)
    ground = clouds(rng, (FRAME_HEIGHT - view.top, FRAME_WIDTH), ((6, 5), (40, 12), (120, 50)))
    grounds = style.grounds[rng.integers(len(style.grounds))]
    image[view.top :] = tinted(ground, vary(rng, grounds, 0.12))
    for _ in range(rng.integers(0, 3)):
        _hills(rng, image, view, style)
    _thicket(rng, image, view, style)
    _buildings(rng, image, view)
    leaves = style.foliage[rng.integers(len(style.foliage))]
    for side in (-1, 1):
        if rng.random() < 0.65:
            _hedge(rng, image, view, edges, side, vary(rng, leaves, 0.2))
    return image, _trees(rng, image, view, edges, style, leaves)


def _sky(rng: np.random.Generator, height: int, style: Style, light: str) -> Image:
    skies = style.skies[light]
    upper, lower = (vary(rng, colour, 0.06) for colour in skies[rng.integers(len(skies))])
    share = np.linspace(0, 1, height)[:, None, None] ** rng.uniform(0.7, 1.6)
    plain = np.rint(upper + (lower - upper) * share).astype(np.uint8)
    sky = np.repeat(plain, FRAME_WIDTH, axis=1)
    strength = rng.uniform(0.15, 0.5) if light != "sunny" else rng.choice([0.0, 0.3, 0.5])
    if strength:
        veil = clouds(rng, (height, FRAME_WIDTH), ((5, 5), (9, 12), (20, 40)))
        grey = cv2.merge([veil, veil, veil])
        sky = as_image(cv2.addWeighted(sky, 1, grey, float(strength), -128 * float(strength)))
    return sky


def _outline(rng: np.random.Generator, points: int, octaves: tuple[int, ...]) -> Rows:
    """A jagged curve between 0 and about 1, (points,)."""
    total = np.zeros(points)
    for number, knots in enumerate(octaves):
        heights = rng.random(knots + 1) / 2**number
        total += np.interp(np.linspace(0, knots, points), np.arange(knots + 1), heights)
    scaled: Rows = total / sum(0.5**n for n in range(len(octaves)))
    return scaled


def _skyline(image: Image, base: float, heights: Rows, colour: Rows) -> None:
    """Fill the area below an outline across the frame, down to the row ``base``."""
    x = np.linspace(-5, FRAME_WIDTH + 5, len(heights))
    outline = np.stack([x, base - heights], axis=1)
    fill(image, [*outline, (x[-1], base + 3.0), (x[0], base + 3.0)], colour)


def _hills(rng: np.random.Generator, image: Image, view: View, style: Style) -> None:
    heights = rng.uniform(20, 90) * _outline(rng, 180, (int(rng.integers(2, 6)), 11, 29, 60))
    haze = image[max(view.top - 4, 0), FRAME_WIDTH // 2].astype(np.float64)
    near = np.array(style.foliage[rng.integers(len(style.foliage))]) * 1.4
    colour = near + (haze - near) * rng.uniform(0.25, 0.7)
    _skyline(image, view.top, heights, colour)


def _thicket(rng: np.random.Generator, image: Image, view: View, style: Style) -> None:
    """A dark band of far trees above the horizon."""
    leaves = style.foliage[rng.integers(len(style.foliage))]
    heights = rng.uniform(10, 46) * _outline(rng, 320, (5, 23, 80, 160))
    if style.tree == "spiky":
        heights *= 1 + 0.5 * (rng.random(320) < 0.12)
    _skyline(image, view.top + 2, heights, vary(rng, leaves, 0.2))


def _buildings(rng: np.random.Generator, image: Image, view: View) -> None:
    for _ in range(rng.integers(0, 4)):
        width, height = rng.uniform(20, 110), rng.uniform(8, 50)
        x = rng.uniform(-50, FRAME_WIDTH)
        wall = vary(rng, (140, 145, 150), 0.25)
        rectangle(image, x, view.top - height, width, height + 3, wall)
        for row in np.arange(view.top - height + 4, view.top - 4, 8):
            rectangle(image, x + 3, row, width - 6, 3, wall * 0.6)


def _hedge(
    rng: np.random.Generator, image: Image, view: View, edges: Edges, side: int, colour: Rows
) -> None:
    """Bushes or a bank beside the road: a strip whose height changes along it."""
    depth = np.geomspace(140, 2.5, 160)
    rows = view.row(depth)
    away = rng.uniform(0.15, 1.2)
    heights = rng.uniform(0.6, 3.0) * (0.5 + 0.5 * _outline(rng, 160, (6, 30, 80)))
    x = edges.at(side, rows) + side * away * view.scale(rows)
    upper = np.stack([x, rows - heights * view.metre(rows)], axis=1)
    outer = FRAME_WIDTH + 900 if side > 0 else -900
    fill(image, [*upper, (outer, rows[-1]), (outer, rows[0] - 2)], colour * 0.9)
    fill(image, [*upper, *np.stack([x, rows], axis=1)[::-1]], colour)


def _trees(
    rng: np.random.Generator, image: Image, view: View, edges: Edges, style: Style, leaves: Colour
) -> list[tuple[float, float, float]]:
    count = int(rng.integers(*style.trees, endpoint=True))
    depths = np.sort(np.exp(rng.uniform(np.log(16), np.log(130), count)))[::-1]
    puffs = clouds(rng, (256, 256), ((16, 16), (60, 60), (256, 256)))
    trees = []
    for depth in depths:
        side = int(rng.choice([-1, 1]))
        row = float(view.row(depth))
        scale, metre = float(view.scale(row)), float(view.metre(row))
        x = float(edges.at(side, row)) + side * rng.uniform(0.5, 5.0) * scale
        height = rng.uniform(5, 16)
        if rng.random() < 0.12:
            _pole(rng, image, x, row, metre, side)
            continue
        trees.append((float(side), float(depth), height))
        draw = _cypress if style.tree == "spiky" and rng.random() < 0.7 else _tree
        draw(rng, image, x, row, height * metre, vary(rng, leaves, 0.15), puffs)
    return trees


def _tree(
    rng: np.random.Generator,
    image: Image,
    x: float,
    row: float,
    height: float,
    leaves: Rows,
    puffs: Image,
) -> None:
    """Draw a tree; its crown covers the pixels where the noise ``puffs`` outweighs the distance to its middle."""
    trunk = max(1.0, height * rng.uniform(0.015, 0.03))
    rectangle(image, x - trunk / 2, row - height * 0.5, trunk, height * 0.5, leaves * 0.55)
    side = int(rng.integers(48, 120))
    corner = rng.integers(0, len(puffs) - side, 2)
    patch = puffs[corner[0] : corner[0] + side, corner[1] : corner[1] + side]
    wide, tall = int(height * rng.uniform(0.5, 0.95)) + 2, int(height * rng.uniform(0.6, 0.8)) + 2
    left, top = int(x - wide / 2), int(row - height)
    whole = image[max(top, 0) : max(top + tall, 0), max(left, 0) : max(left + wide, 0)]
    if not whole.size:
        return
    noise = cv2.resize(patch, (wide, tall), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    noise = noise[max(-top, 0) :, max(-left, 0) :][: whole.shape[0], : whole.shape[1]]
    up = np.linspace(-1, 1, tall, dtype=np.float32)[max(-top, 0) :, None][: whole.shape[0]]
    across = np.linspace(-1, 1, wide, dtype=np.float32)[max(-left, 0) :][: whole.shape[1]]
    crown = noise > 75 + 110 * (up**2 + across**2)
    # Lit from above; gaps between the leaves are darker.
    tone = (noise / 128) * (0.95 - 0.3 * up)
    whole[crown] = np.clip(tone[crown][:, None] * leaves, 0, 255).astype(np.uint8)


def _cypress(
    rng: np.random.Generator,
    image: Image,
    x: float,
    row: float,
    height: float,
    leaves: Rows,
    _: Image,
) -> None:
    wide = height * rng.uniform(0.1, 0.2)
    tiers = int(np.clip(height / 9, 3, 14))
    for k in range(tiers):
        base = row - height * (0.06 + 0.9 * k / tiers)
        half = wide * (1 - k / tiers) * rng.uniform(0.8, 1.2)
        peak = (x, base - height * 1.7 / tiers)
        tone = leaves * rng.uniform(0.8, 1.2)
        fill(image, [(x - half, base), peak, (x + half, base)], tone)


def _pole(
    rng: np.random.Generator, image: Image, x: float, row: float, metre: float, side: int
) -> None:
    """Draw a street lamp or a sign."""
    thickness = max(1, int(0.15 * metre))
    grey = vary(rng, (110, 112, 112), 0.2)
    if rng.random() < 0.5:
        top = row - 9 * metre
        line(
            image,
            [(x, row), (x, top), (x - side * 2.0 * metre, top - 0.4 * metre)],
            grey,
            thickness,
        )
        return
    top = row - rng.uniform(4, 6) * metre
    line(image, [(x, row), (x, top)], grey, thickness)
    face = [(60, 110, 40), (130, 80, 30), (40, 160, 200), (200, 200, 200)][rng.integers(4)]
    wide = rng.uniform(1.2, 3.0) * metre
    rectangle(image, x - wide / 2, top - 1.6 * metre, wide, 1.6 * metre, vary(rng, face, 0.15))
