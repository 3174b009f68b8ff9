"""Drawn scenes: paint lies on the labels, frames follow the horizon, and the two styles differ."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from lane_files import straight

from detprune.errors import InputError
from detprune_lanes.data.roads.geometry import random_lanes
from detprune_lanes.data.roads.paint import Pattern, Stripe, lay
from detprune_lanes.data.roads.scene import draw_scene
from detprune_lanes.data.roads.style import STYLES, TEST, TRAIN
from detprune_lanes.data.roads.view import recover
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

BARE = replace(TRAIN, wear=(0, 0), missing=0, traffic=0, bonnet=0, squeezed=0, bridge=0, dots=0)


def offsets(paint: np.ndarray, lanes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pixels from each label to the middle of the paint in its row, where paint is seen near it.

    ``paint``: (720, 1280), how much there is. Labels whose paint is cut off by the frame's edge, the
    bottom or the end of a dash are left out.
    """
    found = []
    scale = recover(lanes.astype(float), rows.astype(float)).scale(rows)
    for lane in lanes:
        for row, x, lane_width in zip(rows.astype(int), lane, scale, strict=True):
            room = 0.3 * lane_width + 3
            low, high = int(x - room), int(x + room) + 2
            if x < 0 or low < 0 or high > FRAME_WIDTH:
                continue
            around = paint[row - 2 : row + 3, low:high].astype(float)
            weight = around[2]
            if around.max(axis=1).min() >= 40:
                found.append((weight * np.arange(low, high)).sum() / weight.sum() - x)
    return np.array(found)


@pytest.mark.parametrize("pattern", ["solid", "double", "dashed"])
@pytest.mark.parametrize("seed", range(3))
def test_paint_lies_on_the_labels(pattern: Pattern, seed: int) -> None:
    rows, lanes = random_lanes(np.random.default_rng([1, seed]))
    view = recover(lanes.astype(float), rows.astype(float))
    mask = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    for curve in view.lanes:
        lay(mask, Stripe(curve, pattern, False, 0.15, 1.0, phase=3.0), view)
    off = offsets(mask, lanes, rows)
    assert len(off) > (20 if pattern == "dashed" else 60)
    assert abs(np.median(off)) <= 0.2
    assert np.percentile(np.abs(off), 95) <= 2  # labels are straight between rows, the road is not


@pytest.mark.parametrize("seed", range(4))
def test_paint_in_finished_frames_lies_on_the_labels(seed: int) -> None:
    """The same frame with and without paint differs in the paint alone."""
    rows, lanes = random_lanes(np.random.default_rng([2, seed]))
    style = replace(BARE, lights={"overcast": 1.0}, noise=(1, 1))
    with_paint, without = (
        draw_scene(np.random.default_rng(seed), lanes, rows, replace(style, opacity=(o, o)))
        for o in (1.0, 0.0)
    )
    paint = cv2.absdiff(with_paint, without).max(axis=2)
    assert 0.001 < (paint > 20).mean() < 0.06
    off = offsets(np.where(paint > 8, paint, 0), lanes, rows)
    assert len(off) > 20
    assert abs(np.median(off)) <= 0.5
    assert np.percentile(np.abs(off), 95) <= 2.5  # shadows and noise weigh too


def test_paint_narrows_with_the_distance() -> None:
    rows, lanes = np.arange(160, 711, 10), np.stack([straight(200), straight(1100)])
    view = recover(lanes, rows.astype(float))
    mask = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    lay(mask, Stripe(view.lanes[0], "solid", False, 0.15, 1.0), view)
    for row in (400, 550, 700):
        width = (mask[row] / 255).sum()
        lane_width = (lanes[1] - lanes[0])[rows == row][0]
        assert width == pytest.approx(lane_width * 0.15 / 3.66, abs=1.5)


def test_dashes_are_as_long_as_they_are_on_the_road() -> None:
    rows, lanes = np.arange(160, 711, 10), np.stack([straight(-100), straight(1380)])
    view = recover(lanes, rows.astype(float))
    mask = np.zeros((FRAME_HEIGHT, FRAME_WIDTH), np.uint8)
    lay(mask, Stripe(view.lanes[1], "dashed", False, 0.15, 1.0, paint=3, gap=9, phase=6.5), view)
    painted = (mask > 127).any(axis=1).astype(int)
    edges = np.flatnonzero(np.diff(painted)) + 0.5
    metres = np.sort(view.depth(edges))[:4]
    np.testing.assert_allclose(metres, [6.5, 9.5, 18.5, 21.5], atol=0.35)


def test_worn_and_missing_paint_is_weaker() -> None:
    rows, lanes = random_lanes(np.random.default_rng([2, 0]))

    def strength(**changes: object) -> float:
        style = replace(BARE, lights={"overcast": 1.0}, noise=(1, 1), **changes)
        with_paint, without = (
            draw_scene(np.random.default_rng(1), lanes, rows, replace(style, opacity=(o, o)))
            for o in (1.0, 0.0)
        )
        return float(cv2.absdiff(with_paint, without).sum())

    assert strength(wear=(0.4, 0.4)) < 0.9 * strength()
    assert strength(missing=1.0) == 0


@pytest.mark.parametrize("style", ["train", "test"])
def test_a_scene_depends_on_its_generator_alone(style: str) -> None:
    rows, lanes = random_lanes(np.random.default_rng(5))
    first, again, other = (
        draw_scene(np.random.default_rng(seed), lanes, rows, style) for seed in (1, 1, 2)
    )
    assert first.shape == (FRAME_HEIGHT, FRAME_WIDTH, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert cv2.absdiff(first, other).mean() > 5


@pytest.mark.parametrize(
    "lanes", [np.empty((0, 56)), np.full((2, 56), -2.0), np.stack([straight(200)])]
)
def test_frames_with_few_or_no_lanes_are_drawn(lanes: np.ndarray) -> None:
    image = draw_scene(np.random.default_rng(0), lanes, np.arange(160, 711, 10))
    assert image.std() > 10


def test_the_road_lies_below_the_horizon() -> None:
    """Moving all labels down moves what is drawn with them."""
    rows = np.arange(160, 711, 10)
    plain = replace(BARE, trees=(0, 0), noise=(1, 1), lights={"sunny": 1.0})
    brightness = []
    for first in (240, 300):
        lanes = np.stack([straight(200, first=first), straight(1100, first=first)])
        images = [draw_scene(np.random.default_rng(k), lanes, rows, plain) for k in range(6)]
        blue = np.mean([i[..., 0].astype(float) - i[..., 2] for i in images], axis=(0, 2))
        brightness.append(np.flatnonzero(blue > 25).max())
    assert brightness[0] <= 240
    assert 240 < brightness[1] <= 300


def test_the_styles_differ_in_every_palette_and_shape() -> None:
    shared = {"missing", "traffic", "slabs"}  # numbers may be close; these are what a network sees
    for name in ("roads", "grounds", "foliage", "barriers", "dashes", "bodies", "coats"):
        assert not set(getattr(TRAIN, name)) & set(getattr(TEST, name)), name
    for field in fields(TRAIN):
        if field.name not in shared:
            assert getattr(TRAIN, field.name) != getattr(TEST, field.name), field.name
    for style in STYLES.values():
        assert sum(style.lights.values()) == pytest.approx(1)
        assert set(style.skies) == set(style.lights)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"unknown drawing style 'tests' \(did you mean 'test'\?\)"
    ):
        draw_scene(np.random.default_rng(0), np.empty((0, 1)), [700], "tests")
