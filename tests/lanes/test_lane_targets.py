import cv2
import numpy as np
import pytest
from lane_files import ROWS, straight

from detprune_lanes.data.slots import slot_points
from detprune_lanes.data.targets import (
    anchor_positions,
    extend_to_bottom,
    lane_targets,
    rasterise,
    to_cells,
)
from detprune_lanes.grid import Grid

NOTHING = np.empty((0, 2))


def plain_positions(line, anchors):
    """x of one lane that goes down the image, row by row."""
    if len(line) < 2:
        return [-2.0] * len(anchors)
    first, last = line[0] - (line[1] - line[0]) / 2, line[-1] + (line[-1] - line[-2]) / 2
    points = [first, *line, last]
    result = []
    for y in anchors:
        x = -2.0
        if first[1] <= y <= last[1]:
            x = float(np.interp(y, [p[1] for p in points], [p[0] for p in points]))
        result.append(x if 0 <= x <= 1279 else -2.0)
    return result


def plain_extension(xs, anchors):
    """The original's rule for one lane."""
    xs = list(xs)
    valid = [n for n, x in enumerate(xs) if x >= 0]
    if len(valid) < 6:
        return xs
    lower = valid[len(valid) // 2 :]
    line = np.polyfit([anchors[n] for n in lower], [xs[n] for n in lower], deg=1)
    for n in range(valid[-1] + 1, len(xs)):
        x = float(np.polyval(line, anchors[n]))
        xs[n] = x if 0 <= x <= 1279 else -2.0
    return xs


def drawn_lines(rng):
    """Four lanes of a road, cut at any rows, turned and shifted; some of them with no points."""
    lines = []
    for bottom in rng.uniform(-900, 2200, 4):
        points = np.stack([straight(bottom, rng.uniform(500, 800)), ROWS], axis=1)
        points = points[points[:, 0] >= 0]
        points[:, 0] += rng.normal(0, 0.0005) * (points[:, 1] - 400) ** 2
        begin, end = sorted(rng.integers(0, len(points) + 1, 2))
        points = points[begin:end] if rng.random() < 0.7 else points
        lines.append(points + rng.uniform([-200, -100], [200, 100]) if len(points) > 1 else NOTHING)
    return lines


@pytest.mark.parametrize("grid", [Grid(), Grid(cells=50, rows=28), Grid(cells=200, rows=101)])
def test_targets_equal_a_plain_reference(grid):
    rng = np.random.default_rng(1)
    anchors = grid.anchors()
    extended = absent = 0
    for _ in range(100):
        lines = drawn_lines(rng)
        positions = anchor_positions(lines, anchors)
        expected = np.array([plain_positions(line, anchors) for line in lines])
        np.testing.assert_allclose(positions, expected, rtol=0, atol=1e-9)
        longer = extend_to_bottom(positions, anchors)
        expected = np.array([plain_extension(xs, anchors) for xs in positions])
        np.testing.assert_allclose(longer, expected, rtol=0, atol=1e-7)
        extended += (longer != positions).any(axis=1).sum()
        cells = lane_targets(lines, grid)
        assert cells.shape == (grid.rows, grid.lanes)
        assert cells.dtype == np.int64
        for (row, lane), cell in np.ndenumerate(cells):
            x = longer[lane, row]
            assert cell == (grid.cells if x < 0 else x // (1279 / (grid.cells - 1)))
            absent += x < 0
    assert extended > 50
    assert absent > 1000


def test_the_original_s_rows_are_those_of_the_labels():
    points = slot_points([straight(200), straight(1100)], ROWS)
    positions = anchor_positions(points, Grid().anchors())
    np.testing.assert_allclose(positions[1], straight(200), atol=1e-9)
    np.testing.assert_allclose(positions[2], straight(1100), atol=1e-9)
    assert (positions[[0, 3]] == -2).all()


def test_a_gap_in_a_lane_is_bridged():
    seen = np.ones(56, bool)
    seen[20:30] = False
    line = np.stack([300 + ROWS, ROWS], axis=1)[seen]
    np.testing.assert_allclose(anchor_positions([line], ROWS)[0], 300 + ROWS)


@pytest.mark.parametrize(("shift", "rows"), [(0, 11), (4, 11), (-4, 11), (6, 11), (-6, 11)])
def test_a_shift_keeps_the_number_of_rows(shift, rows):
    line = np.stack([np.full(11, 500.0), np.arange(300.0, 401, 10) + shift], axis=1)
    assert (anchor_positions([line], ROWS)[0] >= 0).sum() == rows


def test_a_lane_that_turns_back_is_at_the_mean_of_its_crossings():
    line = np.array([[100.0, 305], [200, 325], [400, 285], [500, 285]])
    x = anchor_positions([line], np.array([310.0, 320.0]))[0]
    np.testing.assert_allclose(x, [(125 + 275) / 2, (175 + 225) / 2])


def test_a_level_lane_is_at_its_middle():
    line = np.array([[100.0, 310], [200, 310]])
    assert anchor_positions([line], np.array([300.0, 310, 320]))[0].tolist() == [-2, 150, -2]


@pytest.mark.parametrize(("rows", "extends"), [(5, False), (6, True)])
def test_lanes_of_six_rows_are_extended(rows, extends):
    x = np.full((1, 56), -2.0)
    x[0, 10 : 10 + rows] = 400
    longer = extend_to_bottom(x, ROWS)
    assert (longer[0, 10 + rows :] == (400 if extends else -2)).all()
    assert (longer[0, :10] == -2).all()
    assert (x[0, 10 + rows :] == -2).all()


def test_only_the_lower_half_decides_the_extension():
    x = np.full((1, 56), -2.0)
    x[0, 5:16] = [900, 0, 900, 0, 900, 500, 510, 520, 530, 540, 550]  # 11 rows, the lower 6 count
    longer = extend_to_bottom(x, ROWS)
    np.testing.assert_allclose(longer[0, 16:], 560 + 10 * np.arange(40))


def test_the_extension_ends_where_it_leaves_the_image():
    x = np.full((2, 56), -2.0)
    x[0, :10] = 1000 + 10 * np.arange(10)
    x[1, :10] = 95 - 10 * np.arange(10)
    longer = extend_to_bottom(x, ROWS)
    expected = 1000 + 10 * np.arange(56)
    np.testing.assert_allclose(longer[0], np.where(expected <= 1279, expected, -2))
    assert (longer[1, 10:] == -2).all()


def test_a_lane_that_reaches_the_bottom_keeps_its_gaps():
    x = np.full((1, 56), -2.0)
    x[0, 10:20] = x[0, -1] = 400
    assert np.array_equal(extend_to_bottom(x, ROWS), x)


@pytest.mark.parametrize(
    ("x", "cell"), [(-2, 100), (0, 0), (12.9, 0), (12.93, 1), (640, 49), (1278.9, 98), (1279, 99)]
)
def test_cells_are_a_99th_of_the_image_wide(x, cell):
    assert to_cells(np.array([[float(x)]]), 100).tolist() == [[cell]]


@pytest.mark.parametrize("size", [(288, 800), (96, 320), (160, 416)])
def test_the_segmentation_has_lanes_16_pixels_thick(size):
    lines = [straight(x).copy() for x in (-500, 250, 950, 1900)]
    points = slot_points(lines, ROWS)
    small = rasterise(points, size)
    height, width = size[0] // 8, size[1] // 8
    assert small.shape == (height, width)
    assert small.dtype == np.uint8
    assert set(np.unique(small)) == {0, 1, 2, 3, 4}
    for (row, column), value in np.ndenumerate(small):
        # The frame's pixel below the middle of the small one
        x, y = int((column + 0.5) * 1280 / width), int((row + 0.5) * 720 / height)
        far = [
            -cv2.pointPolygonTest(line[:, None].astype(np.float32), (x, y), True) for line in points
        ]
        if min(far) < 6:
            assert value in [slot for slot, d in enumerate(far, start=1) if d < 11]
        elif min(far) > 11:
            assert value == 0


def test_the_segmentation_of_no_lanes_is_background():
    assert not rasterise([NOTHING] * 4, (288, 800)).any()
    beside = np.array([[-500.0, 200], [-300, 700]])
    assert not rasterise([beside, NOTHING, NOTHING, NOTHING], (288, 800)).any()


def test_the_extension_is_not_segmented():
    line = np.stack([np.full(12, 640.0), np.arange(300.0, 411, 10)], axis=1)
    points = [NOTHING, line, NOTHING, NOTHING]
    assert (lane_targets(points, Grid())[-1] == [100, 49, 100, 100]).all()
    assert not rasterise(points, (288, 800))[22:].any()
