"""Borders of the paved surface: concrete walls, guard rails, and bridges over the road."""

import numpy as np

from detprune_lanes.data.roads.canvas import Image, fill, line, rectangle, ribbon, vary
from detprune_lanes.data.roads.style import Style
from detprune_lanes.data.roads.surface import Edges
from detprune_lanes.data.roads.view import Rows, View
from detprune_lanes.grid import FRAME_WIDTH

_POSTS = 4.0  # metres between the posts of a rail


def barriers(
    rng: np.random.Generator, image: Image, view: View, edges: Edges, style: Style
) -> None:
    """Draw a wall, a rail or nothing along each side of the road."""
    for side in (-1, 1):
        kind = rng.choice(["wall", "rail", "none"], p=[0.42, 0.28, 0.3])
        away = rng.uniform(0.02, 0.3)
        depth = np.geomspace(150, 1.2, 90)
        rows = view.row(depth)
        x = edges.at(side, rows) + side * away * view.scale(rows)
        colour = vary(rng, style.barriers[rng.integers(len(style.barriers))], 0.12)
        if kind == "wall":
            _wall(rng, image, view, x, rows, colour)
        elif kind == "rail":
            _rail(rng, image, view, side, edges, away)


def _wall(
    rng: np.random.Generator, image: Image, view: View, x: Rows, rows: Rows, colour: Rows
) -> None:
    height = rng.uniform(0.75, 1.3)
    metre = view.metre(rows)
    top = rows - height * metre
    lower = np.stack([x, rows], axis=1)
    upper = np.stack([x, top], axis=1)
    fill(image, np.concatenate([lower, upper[::-1]]), colour)
    foot = np.stack([x, rows - 0.22 * metre], axis=1)
    fill(image, np.concatenate([lower, foot[::-1]]), colour * rng.uniform(0.6, 0.9))
    cap = np.stack([x, top + 0.1 * metre], axis=1)
    fill(image, np.concatenate([upper, cap[::-1]]), colour * 1.15)
    for depth in np.arange(rng.uniform(2, 6), 60, 6.0):
        k = int(np.argmin(np.abs(rows - view.row(depth))))
        line(image, [lower[k], upper[k]], colour * 0.8)


def _rail(
    rng: np.random.Generator, image: Image, view: View, side: int, edges: Edges, away: float
) -> None:
    steel = vary(rng, (150, 150, 148), 0.15)
    for depth in np.arange(100, 3, -_POSTS):
        row = float(view.row(depth))
        metre = float(view.metre(row))
        x = float(edges.at(side, row)) + side * away * float(view.scale(row))
        rectangle(
            image, x - 0.06 * metre, row - 0.7 * metre, 0.12 * metre, 0.7 * metre, steel * 0.55
        )
    rows = view.row(np.geomspace(130, 1.2, 80))
    along = edges.at(side, rows) + side * away * view.scale(rows)
    up = view.metre(rows)
    for low, high, tone in ((0.45, 0.76, 1.0), (0.58, 0.64, 0.65)):
        lower = np.stack([along, rows - low * up], axis=1)
        upper = np.stack([along, rows - high * up], axis=1)
        fill(image, np.concatenate([lower, upper[::-1]]), steel * tone)


def bridge(rng: np.random.Generator, image: Image, view: View, edges: Edges) -> float:
    """Draw a bridge over the road; return its distance in metres, where its shadow falls."""
    depth = float(np.exp(rng.uniform(np.log(22), np.log(75))))
    row = float(view.row(depth))
    metre = float(view.metre(row))
    under, thick = rng.uniform(4.8, 5.8) * metre, rng.uniform(1.2, 2.2) * metre
    tilt = rng.uniform(-0.04, 0.04)
    concrete = vary(rng, (88, 90, 92), 0.25)
    ends = np.array([-10.0, FRAME_WIDTH + 10.0])
    lower = row - under + (ends - FRAME_WIDTH / 2) * tilt
    deck = ribbon(lower - thick, lower, ends)[:, ::-1]
    for side in (-1, 1):
        pier = float(edges.at(side, row)) + side * rng.uniform(0.3, 1.2) * float(view.scale(row))
        rectangle(image, pier - 0.5 * metre, row - under - 2, metre, under + 2, concrete * 0.7)
    fill(image, deck, concrete)
    soffit = ribbon(lower - thick * 0.25, lower, ends)[:, ::-1]
    fill(image, soffit, concrete * 0.45)
    rail = np.stack([ends, lower - thick], axis=1)
    line(image, rail, concrete * 1.25, max(1, int(0.25 * metre)))
    return depth
