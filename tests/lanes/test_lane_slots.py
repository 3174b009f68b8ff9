import math

import numpy as np
import pytest
from lane_files import ROWS, straight

from detprune_lanes.data.slots import assign_slots, slot_points


def plain_slots(lanes, rows):
    """The rules, one lane after the other."""
    left, right = [], []
    for number, lane in enumerate(lanes):
        seen = [(x, y) for x, y in zip(lane, rows, strict=True) if x >= 0]
        if not seen:
            continue
        (x0, y0), (x1, y1) = seen[0], seen[-1]
        if math.sqrt((x1 - x0) ** 2 + (y1 - y0) ** 2) < 90:
            continue
        slope = np.polyfit([x for x, _ in seen], [y for _, y in seen], deg=1)[0]
        angle = math.atan(slope)
        if angle < 0:
            left.append((angle, number))
        elif angle > 0:
            right.append((angle, number))
    left.sort()
    right.sort(reverse=True)
    slots = [None, None, None, None]
    for (_, number), slot in zip(left, (1, 0), strict=False):
        slots[slot] = number
    for (_, number), slot in zip(right, (2, 3), strict=False):
        slots[slot] = number
    return tuple(slots)


def drawn_lanes(rng):
    """Up to seven bent, noisy lanes in any order, parts of them unseen; some short, some unseen."""
    lanes = []
    for bottom in rng.uniform(-1500, 2800, rng.integers(0, 8)):
        x = straight(bottom, top=rng.uniform(500, 800), first=rng.integers(160, 500))
        x = x + (x >= 0) * (rng.normal(0, 0.0004) * (ROWS - 400) ** 2 + rng.normal(0, 1, len(x)))
        begin, end = np.sort(rng.integers(0, len(x) + 1, 2)) if rng.random() < 0.4 else (0, len(x))
        seen = (np.arange(len(x)) >= begin) & (np.arange(len(x)) < end) & (x >= 0) & (x < 1280)
        lanes.append(np.where(seen, np.round(x), -2))
    return lanes


def test_slots_follow_the_rules_on_drawn_roads():
    rng = np.random.default_rng(0)
    roads = [drawn_lanes(rng) for _ in range(400)]
    expected = [plain_slots(lanes, ROWS) for lanes in roads]
    assert [assign_slots(lanes, ROWS) for lanes in roads] == expected
    used = {tuple(slot is not None for slot in slots) for slots in expected}
    assert len(used) == 9  # none, the inner one or both, on either side
    assert sum(len(lanes) > 4 for lanes in roads) > 50


LEFT, FAR_LEFT, RIGHT, FAR_RIGHT = straight(300), straight(-700), straight(950), straight(2000)
FURTHEST_LEFT, FURTHEST_RIGHT = straight(-2000), straight(3000)


@pytest.mark.parametrize(
    ("lanes", "slots"),
    [
        ([], (None, None, None, None)),
        ([LEFT], (None, 0, None, None)),
        ([RIGHT], (None, None, 0, None)),
        ([LEFT, RIGHT], (None, 0, 1, None)),
        ([FAR_RIGHT, RIGHT, FAR_LEFT, LEFT], (2, 3, 1, 0)),
        ([FURTHEST_LEFT, FAR_LEFT, LEFT], (1, 2, None, None)),
        ([FURTHEST_RIGHT, LEFT, FAR_RIGHT, RIGHT], (None, 1, 3, 2)),
        ([np.full(56, -2.0)], (None, None, None, None)),
    ],
)
def test_inner_lanes_fill_the_inner_slots(lanes, slots):
    assert assign_slots(lanes, ROWS) == slots


@pytest.mark.parametrize(("points", "kept"), [(9, False), (10, True)])
def test_lanes_shorter_than_90_pixels_are_left_out(points, kept):
    x = np.full(56, -2.0)
    x[:points] = 900 + 0.01 * np.arange(points)  # 80.0 or 90.0 pixels long
    assert (assign_slots([x], ROWS)[2] == 0) == kept


def test_a_single_point_is_left_out():
    x = np.full(56, -2.0)
    x[30] = 400
    assert assign_slots([x], ROWS) == (None, None, None, None)


@pytest.mark.parametrize(("x", "slot"), [(600.0, 1), (700.0, 2)])
def test_a_vertical_lane_is_the_innermost_of_its_side(x, slot):
    slots = assign_slots([LEFT, RIGHT, np.full(56, x)], ROWS)
    assert slots[slot] == 2
    assert sorted(s for s in slots if s is not None) == [0, 1, 2]


def test_a_lane_of_slope_zero_has_no_side():
    x = np.full(4, -2.0)
    x[[0, 1, 2]] = 100, 300, 100
    assert assign_slots([x], np.array([0.0, 50, 100, 150])) == (None, None, None, None)


@pytest.mark.parametrize(
    ("lane", "slots"), [(LEFT, (1, 0, None, None)), (RIGHT, (None, None, 0, 1))]
)
def test_of_equal_lanes_the_first_is_the_inner_one(lane, slots):
    assert assign_slots([lane, lane.copy()], ROWS) == slots


def test_points_are_the_seen_ones_of_each_slot():
    points = slot_points([RIGHT, FAR_LEFT], ROWS)
    assert points[0].shape == points[3].shape == (0, 2)
    seen = RIGHT >= 0
    assert np.array_equal(points[2], np.stack([RIGHT[seen], ROWS[seen]], axis=1))
    seen = FAR_LEFT >= 0
    assert np.array_equal(points[1], np.stack([FAR_LEFT[seen], ROWS[seen]], axis=1))
