"""Light and camera: shadows on the road, brightness, glare, the car's own bonnet, blur and noise."""

import cv2
import numpy as np

from detprune_lanes.data.roads.canvas import Image, as_image, fill, fixed, grain, grained
from detprune_lanes.data.roads.geometry import LANE_WIDTH
from detprune_lanes.data.roads.plane import LENGTH, WIDTH, Plane
from detprune_lanes.data.roads.style import Style
from detprune_lanes.data.roads.view import View
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH


def light_of(rng: np.random.Generator, style: Style) -> str:
    """Choose the light of a frame."""
    kinds = list(style.lights)
    return kinds[int(rng.choice(len(kinds), p=list(style.lights.values())))]


def shadows(
    rng: np.random.Generator,
    plane: Plane,
    trees: list[tuple[float, float, float]],
    bridge: float | None,
    style: Style,
) -> Image:
    """Shadows on the road from above, (LENGTH, WIDTH): 255 where the sun reaches it.

    Args:
        trees: side, depth and height in metres of those that stand beside the road.
        bridge: metres to a bridge over the road.
    """
    shade = np.full((LENGTH, WIDTH), 255, np.uint8)
    dark = float(rng.uniform(95, 175))
    reach = rng.uniform(-0.6, 0.9)  # which way, and how far, shadows fall
    for side, depth, height in trees:
        if side * reach > 0 or depth > 70:
            continue
        edge = plane.left if side < 0 else plane.right
        tip = edge - side * abs(reach) * height / LANE_WIDTH
        if style.shadow == "stripes":
            half = depth * rng.uniform(0.01, 0.03)
            lean = rng.uniform(-2, 2)
            laterals = [edge + 3 * side, edge + 3 * side, tip, tip]
            depths = [depth - half, depth + half, depth + half + lean, depth - half + lean]
            corners = np.stack([plane.columns(laterals), plane.rows(depths)], axis=1)
            cv2.fillPoly(shade, [fixed(corners)], dark, cv2.LINE_8, 4)
            continue
        for _ in range(rng.integers(4, 12)):
            lateral = rng.uniform(min(edge, tip), max(edge, tip))
            place = (int(plane.columns(lateral)), int(plane.rows(depth + rng.normal(0, 1.5))))
            axes = (int(rng.integers(8, 46)), int(rng.integers(4, 26)))
            cv2.ellipse(shade, place, axes, 0, 0, 360, dark, -1)
    if bridge is not None:
        first, last = plane.rows([bridge, bridge + rng.uniform(7, 12)])
        fill(shade, [(0, first), (WIDTH, first), (WIDTH, last), (0, last)], dark * 0.75)
    blur = (0, 0), float(rng.uniform(0.8, 3.0))
    return as_image(cv2.GaussianBlur(shade, *blur))


def bonnet(rng: np.random.Generator, image: Image) -> None:
    """Draw the edge of the car's own bonnet at the bottom."""
    rise = rng.uniform(18, 60)
    x = np.linspace(-20, FRAME_WIDTH + 20, 40)
    curve = FRAME_HEIGHT - rise * (1 - ((x - 640) / rng.uniform(700, 1200)) ** 2)
    colour = np.full(3, rng.uniform(15, 70)) + rng.normal(0, 4, 3)
    lower = [(x[-1], FRAME_HEIGHT + 9), (x[0], FRAME_HEIGHT + 9)]
    fill(image, [*np.stack([x, curve], axis=1), *lower], colour)
    upper = np.stack([x, curve], axis=1)
    fill(image, np.concatenate([upper, (upper + np.array([0, 4]))[::-1]]), colour * 1.7)


def exposed(rng: np.random.Generator, image: Image, light: str) -> Image:
    """The frame in its light: brightness, contrast and colour cast."""
    gains = {
        "overcast": (0.68, 0.98),
        "sunny": (0.8, 1.1),
        "glare": (0.8, 1.1),
        "dusk": (0.6, 0.85),
    }
    gain, power = rng.uniform(*gains[light]), rng.uniform(0.85, 1.2)
    cast = 1 + rng.normal(0, 0.03, 3)
    if light == "dusk":
        cast *= (1.06, 0.99, 0.96)
    lift = rng.uniform(0, 28) if light == "glare" else rng.uniform(0, 6)
    levels = np.arange(256) / 255
    table = lift + (255 - lift) * (levels**power)[:, None] * gain * cast
    return as_image(cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8)[None]))


def glare(rng: np.random.Generator, image: Image, view: View) -> Image:
    """A low sun ahead: a bright disc, and its veil over everything around."""
    x, y = rng.uniform(200, 1080), view.horizon - rng.uniform(10, 170)
    rows, columns = np.mgrid[0:45, 0:80].astype(np.float64)
    away = np.hypot(columns * 16 + 8 - x, (rows * 16 + 8 - y) * 1.15)
    veil = 150 * np.exp(-((away / rng.uniform(60, 110)) ** 2))
    veil += rng.uniform(30, 75) * np.exp(-away / rng.uniform(200, 420))
    warm = np.clip(veil[..., None] * [0.85, 0.95, 1.0], 0, 255).astype(np.uint8)
    full = cv2.resize(warm, (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_LINEAR)
    return as_image(cv2.add(image, full))


def camera(rng: np.random.Generator, image: Image, style: Style) -> Image:
    """Add the camera's effects: darker corners, blur, noise, and sometimes strong compression."""
    image = as_image(cv2.GaussianBlur(image, (0, 0), rng.uniform(*style.blur)))
    image = grained(image, grain(rng, FRAME_HEIGHT), rng.uniform(*style.noise))
    if rng.random() < style.squeezed:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 60))]
        _, code = cv2.imencode(".jpg", image, quality)
        image = as_image(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return image
