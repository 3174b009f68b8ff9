"""Draws one frame around given lane boundaries, as a front camera in a car would see it."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from detprune_lanes.data.roads.backdrop import behind
from detprune_lanes.data.roads.barriers import barriers, bridge
from detprune_lanes.data.roads.canvas import (
    Image,
    clouds,
    fill,
    grain,
    grained,
    ribbon,
    shaded,
    tinted,
    vary,
)
from detprune_lanes.data.roads.light import bonnet, camera, exposed, glare, light_of, shadows
from detprune_lanes.data.roads.paint import cover, lay, stripes, worn
from detprune_lanes.data.roads.plane import plane_of
from detprune_lanes.data.roads.style import Style, style_of
from detprune_lanes.data.roads.surface import Edges, edges_of, surface
from detprune_lanes.data.roads.vehicles import draw_vehicle, shadow, traffic
from detprune_lanes.data.roads.view import View, recover
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

_WHITE, _YELLOW = (228, 232, 232), (74, 172, 216)
_ROUGH = 6.0  # grain of everything but the road, in grey levels


def draw_scene(
    rng: np.random.Generator, lanes: ArrayLike, rows: ArrayLike, style: str | Style = "train"
) -> Image:
    """Draw a frame, (720, 1280, 3) in BGR, whose paint follows the lanes.

    Args:
        rng: gives all randomness.
        lanes: (L, R), x in pixels per row, negative where absent; L may be 0.
        rows: (R,), y in pixels, rising.
        style: "train", "test", or one of your own.

    Raises:
        InputError: there is no such style.
    """
    style = style_of(style) if isinstance(style, str) else style
    rows = np.asarray(rows, np.float64)
    view = recover(np.asarray(lanes, np.float64).reshape(-1, len(rows)), rows)
    light = light_of(rng, style)
    sunny = light in ("sunny", "glare")
    edges = edges_of(rng, view)
    plane = plane_of(view, *edges.laterals(view))
    below = slice(view.top, FRAME_HEIGHT)

    image, trees = behind(rng, view, edges, style, light)
    noise = grain(rng, FRAME_HEIGHT)
    image = grained(image, noise, _ROUGH)
    tone = plane.seen(surface(rng, plane, view, style))
    tone = grained(tone, noise[below], rng.uniform(*style.grain))
    colour = vary(rng, style.roads[rng.integers(len(style.roads))], 0.06)
    paved = _paved(view, edges)
    cv2.copyTo(tinted(tone, colour), paved, image[below])
    barriers(rng, image, view, edges, style)
    over = bridge(rng, image, view, edges) if rng.random() < style.bridge else None
    _paint(rng, image, view, edges, style)

    vehicles = traffic(rng, view, style)
    shade = np.full((FRAME_HEIGHT, FRAME_WIDTH), 255, np.uint8)
    if sunny:
        cv2.copyTo(plane.seen(shadows(rng, plane, trees, over, style)), paved, shade[below])
    for vehicle in vehicles:
        shadow(shade, vehicle, view, 0.65 if sunny else 0.5)
    image[below] = shaded(image[below], shade[below])
    for vehicle in vehicles:
        draw_vehicle(image, vehicle, view, glowing=light == "dusk")

    if light == "glare":
        image = glare(rng, image, view)
    if rng.random() < style.bonnet:
        bonnet(rng, image)
    return camera(rng, exposed(rng, image, light), style)


def _paved(view: View, edges: Edges) -> Image:
    """Where the road's surface is seen, from the view's top row down: 255, else 0."""
    rows = np.arange(view.top - 1, FRAME_HEIGHT + 1)
    mask = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    fill(mask, ribbon(edges.left[rows], edges.right[rows], rows), 255)
    return mask[view.top :]


def _paint(rng: np.random.Generator, image: Image, view: View, edges: Edges, style: Style) -> None:
    masks = np.zeros((2, FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    for stripe in stripes(rng, view, edges, style):
        lay(masks[int(stripe.yellow)], stripe, view)
    patchy = clouds(rng, (FRAME_HEIGHT, FRAME_WIDTH), ((16, 20), (50, 70), (150, 300)))
    share = rng.uniform(*style.wear)
    for mask, colour in zip(masks, (_WHITE, _YELLOW), strict=True):
        cover(image, worn(mask, patchy, share), vary(rng, colour, 0.05))
