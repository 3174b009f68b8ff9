"""Lane paint along the labelled boundaries: solid, dashed, double or dotted, white or yellow, worn.

Paint is as wide across the road everywhere, so its width in the frame grows with the rows below the
horizon, and dashes are laid out in metres ahead of the camera.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from detprune_lanes.data.roads.canvas import Image, fill, ribbon
from detprune_lanes.data.roads.style import Style
from detprune_lanes.data.roads.surface import Edges
from detprune_lanes.data.roads.view import Rows, View, at
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

Pattern = Literal["solid", "dashed", "double", "dotted", "none"]

_FARTHEST = 160.0  # metres
_STEP = 4.0  # rows between the points of a curve
_SMOOTH = 1.0  # pixels by which smooth edges widen what is filled
_FAINT = 1.6  # pixels: narrower paint is drawn at this width, and fainter


@dataclass(frozen=True)
class Stripe:
    """Paint along one boundary; ``width`` and lengths in metres.

    A dash begins ``phase`` metres ahead; ``dots`` are reflectors in the middle of the gaps.
    """

    curve: Rows
    pattern: Pattern
    yellow: bool
    width: float
    opacity: float
    paint: float = 3.0
    gap: float = 9.0
    phase: float = 0.0
    dots: bool = False


def stripes(rng: np.random.Generator, view: View, edges: Edges, style: Style) -> list[Stripe]:
    """Choose the paint of every boundary of a frame, and of lanes beyond the labelled ones."""
    dash = style.dashes[rng.integers(len(style.dashes))]
    width = rng.uniform(*style.paint_width)
    yellow_left = rng.random() < 0.5
    phase = rng.uniform(0, sum(dash))
    together = rng.random() < 0.7  # whether all boundaries' dashes begin at the same distance
    dots = rng.random() < style.dots
    last = len(view.lanes) - 1
    chosen = []
    curves = list(view.lanes)
    rows = np.arange(len(view.centre))
    if edges.spare_left:
        curves.append(view.lanes[0] - view.scale(rows))
    if edges.spare_right:
        curves.append(view.lanes[-1] + view.scale(rows))
    for number, curve in enumerate(curves):
        outer_left = number == 0 and not edges.spare_left
        outer_right = number == last and not edges.spare_right
        if outer_left or outer_right:
            options: list[Pattern] = ["solid", "dashed", "double"]
            pattern = options[rng.choice(3, p=[0.68, 0.24, 0.08])]
        else:
            options = ["dashed", "solid", "dotted", "double"]
            pattern = options[rng.choice(4, p=[0.74, 0.16, 0.05, 0.05])]
        chosen.append(
            Stripe(
                curve,
                "none" if rng.random() < style.missing else pattern,
                yellow=outer_left and pattern != "dashed" and yellow_left,
                width=width * rng.uniform(0.9, 1.15),
                opacity=rng.uniform(*style.opacity),
                paint=dash[0],
                gap=dash[1],
                phase=phase if together else rng.uniform(0, sum(dash)),
                dots=dots,
            )
        )
    return chosen


def lay(mask: Image, stripe: Stripe, view: View) -> None:
    """Add a stripe to a mask, (FRAME_HEIGHT, FRAME_WIDTH), as its opacity · 255 where it covers."""
    match stripe.pattern:
        case "solid":
            _strip(mask, stripe, view, 0.0, 1.0, _FARTHEST)
        case "double":
            for side in (-1.0, 1.0):
                _strip(mask, stripe, view, side * stripe.width, 1.0, _FARTHEST)
        case "dashed":
            period = stripe.paint + stripe.gap
            for start in np.arange(stripe.phase - period, _FARTHEST, period):
                end = start + stripe.paint
                _strip(mask, stripe, view, 0.0, start, end)
                if stripe.dots and 0 < end < 60:
                    dot = end + stripe.gap / 2
                    _strip(mask, stripe, view, 0.0, dot, dot + 0.12)
        case "dotted":
            for start in np.arange(stripe.phase % 2.4, 80, 2.4):
                _strip(mask, stripe, view, 0.0, start, start + 0.25)


def _strip(
    mask: Image, stripe: Stripe, view: View, sideways: float, near: float, far: float
) -> None:
    """Paint between two distances in metres, ``sideways`` metres from the boundary."""
    if far <= 0.5:
        return
    low = min(float(view.row(max(near, 0.5))), FRAME_HEIGHT + 40.0)
    high = max(float(view.row(far)), view.horizon + 1.5)
    if high >= low:
        return
    # Far pieces are thinner than a pixel: each has its own strength.
    cuts = [low]
    while cuts[-1] > high:
        reach = max((cuts[-1] - view.horizon) * 0.6 + view.horizon, high)
        cuts.append(high if reach - high < 1 else reach)
    for bottom, top in pairwise(cuts):
        rows = np.linspace(top, bottom, max(2, int((bottom - top) / _STEP) + 1))
        metre = view.metre(rows)
        half = np.maximum(stripe.width * metre - _SMOOTH, _FAINT) / 2
        middle = at(stripe.curve, rows) + sideways * metre
        if (middle + half).max() < 0 or (middle - half).min() > FRAME_WIDTH:
            continue
        thin = min(1.0, float((stripe.width * metre).mean()) / _FAINT)
        piece = ribbon(middle - half, middle + half, rows)
        fill(mask, piece, 255 * stripe.opacity * thin)


def worn(mask: Image, patchy: Image, share: float) -> Image:
    """Take paint away where noise, (H, W) around 128, is low: about ``share`` of it."""
    limit = 128 + 70 * (2 * share - 1)
    table = np.clip((np.arange(256) - limit) * 6 + 128, 40, 255).astype(np.uint8)
    return np.asarray(cv2.multiply(mask, cv2.LUT(patchy, table), scale=1 / 255), np.uint8)


def cover(image: Image, mask: Image, colour: Rows) -> None:
    """Blend a colour into an image in place, (H, W, 3) and contiguous, by a mask, (H, W)."""
    places = np.flatnonzero(mask != 0)
    pixels = image.reshape(-1, 3)
    share = mask.reshape(-1)[places].astype(np.float32)[:, None] / 255
    below = pixels[places].astype(np.float32)
    pixels[places] = np.rint(below + (colour.astype(np.float32) - below) * share).astype(np.uint8)
