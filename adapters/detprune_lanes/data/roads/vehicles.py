"""Vehicles ahead, in their lanes: boxes with a rear, the side that the camera sees, and lights."""

from dataclasses import dataclass

import cv2
import numpy as np

from detprune_lanes.data.roads.canvas import Image, fill, rectangle, scalar, vary
from detprune_lanes.data.roads.style import Body, Style
from detprune_lanes.data.roads.view import Rows, View, at

_APART = 11.0  # metres, at least, between the rears of two vehicles in a lane
_OWN_LANE = 10.0  # metres kept free ahead of the car itself


@dataclass(frozen=True)
class Vehicle:
    """A vehicle whose rear stands ``depth`` metres ahead, on a curve (REACH,) along its lane."""

    body: Body
    colour: Rows
    depth: float
    curve: Rows
    braking: bool


def traffic(rng: np.random.Generator, view: View, style: Style) -> list[Vehicle]:
    """Place vehicles in the lanes between the boundaries, from far to near."""
    found = []
    for left, right in view.slots:
        own = view.lanes[left, 719] < 640 < view.lanes[right, 719]
        nearest = _OWN_LANE if own else 3.5
        depths: list[float] = []
        for _ in range(rng.poisson(style.traffic)):
            depth = float(np.exp(rng.uniform(np.log(nearest), np.log(110))))
            if all(abs(depth - other) > _APART for other in depths):
                depths.append(depth)
        middle = (view.lanes[left] + view.lanes[right]) / 2
        wander = rng.normal(0, 0.06) * view.scale(np.arange(len(middle)))
        for depth in depths:
            body = style.bodies[rng.choice(len(style.bodies), p=_shares(len(style.bodies)))]
            colour = vary(rng, style.coats[rng.integers(len(style.coats))], 0.15)
            found.append(Vehicle(body, colour, depth, middle + wander, bool(rng.random() < 0.3)))
    return sorted(found, key=lambda vehicle: -vehicle.depth)


def _shares(kinds: int) -> list[float]:
    """Chance of each kind of body; the last is a lorry and rarer."""
    return [0.9 / (kinds - 1)] * (kinds - 1) + [0.1]


def shadow(shade: Image, vehicle: Vehicle, view: View, darkness: float) -> None:
    """Darken the road below a vehicle in a shade map, (FRAME_HEIGHT, FRAME_WIDTH), 255 = lit."""
    near, far = (float(view.row(vehicle.depth + d)) for d in (-0.35, vehicle.body.length))
    points = []
    for row, side in ((near, -1), (near, 1), (far, 1), (far, -1)):
        half = 0.56 * vehicle.body.width * float(view.metre(row))
        points.append((float(at(vehicle.curve, row)) + side * half, row))
    fill(shade, points, 255 * (1 - darkness))


def draw_vehicle(image: Image, vehicle: Vehicle, view: View, glowing: bool) -> None:
    """Draw a vehicle: the side nearer to the camera first, then its rear."""
    body, colour = vehicle.body, vehicle.colour
    row = float(view.row(vehicle.depth))
    metre = float(view.metre(row))
    x = float(at(vehicle.curve, row))
    width, height = body.width * metre, body.height * metre
    ahead = float(view.row(vehicle.depth + body.length))
    shrink = float(view.metre(ahead)) / metre
    there = float(at(vehicle.curve, ahead))
    inner = -1 if x > there else 1  # the side of the rear behind which the flank is seen
    clear = 0.18 * metre  # ground clearance
    waist, glass = body.waist * height, scalar((38, 34, 30))

    def flank(across: float, along: float, up: float) -> tuple[float, float]:
        """A point on the seen side: shares of half the width and of the length, and pixels up."""
        scale = 1 + (shrink - 1) * along
        ground = row + (ahead - row) * along
        middle = x + (there - x) * along
        return middle + inner * across * width / 2 * scale, ground - up * scale

    def side(
        low: float, high: float, colour: object, front: float = 1.0, lean: float = 0.0
    ) -> None:
        corners = (
            flank(1, 0, low),
            flank(1 - lean, 0, high),
            flank(1 - lean, front - lean, high),
            flank(1, front, low),
        )
        fill(image, corners, colour)

    for along in (0.2, 0.78):
        centre = flank(1, along, 0.3 * metre)
        radius = 0.33 * metre * (1 + (shrink - 1) * along)
        axes = (max(1, int(radius * 0.5)), max(1, int(radius)))
        cv2.ellipse(image, (int(centre[0]), int(centre[1])), axes, 0, 0, 360, (24, 24, 24), -1)
    side(clear, waist, colour * 0.72)
    lean = 1 - body.roof
    if body.waist < 0.9:
        side(waist, height, colour * 0.6, 0.75, lean)
        side(waist + 0.05 * height, height * 0.95, glass, 0.7, lean)
    for tyre in (-1, 1):
        rectangle(
            image, x + tyre * width * 0.38 - width * 0.09, row - 0.4 * metre, width * 0.18, 0.4 * metre,
            (22, 22, 22),
        )  # fmt: skip
    left = x - width / 2
    for share, tone in ((1.0, 1.0), (0.72, 0.88), (0.4, 0.72)):  # darker towards the road
        rectangle(image, left, row - waist * share, width, waist * share - clear, colour * tone)
    rectangle(image, left, row - clear - 0.16 * metre, width, 0.16 * metre, colour * 0.55)
    if body.waist < 0.9:
        trim = body.roof * width / 2
        roof = [(left, row - waist), (x - trim, row - height), (x + trim, row - height)]
        fill(image, [*roof, (left + width, row - waist)], colour * 0.92)
        low, high = row - waist - 0.04 * height, row - height * 0.95
        panes = [(left + 0.1 * width, low), (x - trim * 0.86, high), (x + trim * 0.86, high)]
        fill(image, [*panes, (left + 0.9 * width, low)], glass)
    _rear(image, x, row, metre, vehicle, glowing)


def _rear(
    image: Image, x: float, row: float, metre: float, vehicle: Vehicle, glowing: bool
) -> None:
    """Lights and number plate."""
    width, height = vehicle.body.width * metre, vehicle.body.height * metre
    lorry = vehicle.body.waist > 0.9
    level = row - (0.22 if lorry else vehicle.body.waist * 0.82) * height
    tall = 0.17 * metre
    bright = vehicle.braking or glowing
    red = (40, 40, 245) if bright else (34, 30, 130)
    for side in (-1, 1):
        lamp = x + side * width * 0.41
        rectangle(image, lamp - width * 0.08, level, width * 0.16, tall, red)
        if glowing:
            place = (int(lamp), int(level + tall / 2))
            cv2.circle(image, place, int(0.1 * metre) + 1, (120, 120, 255), -1)
    rectangle(
        image, x - 0.25 * metre, row - 0.62 * metre, 0.5 * metre, 0.16 * metre, (190, 196, 196)
    )
