import math

import numpy as np
import pytest
import torch
from lane_files import ROWS, straight

from detprune.errors import NonFiniteError
from detprune_lanes.data.slots import slot_points
from detprune_lanes.data.targets import lane_targets
from detprune_lanes.decode import TUSIMPLE_ROWS, decode, tusimple_lanes
from detprune_lanes.grid import Grid


def plain_x(scores):
    """x before rounding, or None, from the logits of one lane in one row."""
    scores = scores.tolist()
    cells = len(scores) - 1
    if max(range(cells + 1), key=scores.__getitem__) == cells:
        return None
    powers = [math.exp(s - max(scores)) for s in scores[:cells]]
    cell = sum(n * p for n, p in enumerate(powers)) / sum(powers)
    return (cell + 0.5) * 1280.0 / (cells - 1)


def plain_decode(logits, grid, rows):
    """Lane by lane and row by row."""
    anchors = grid.anchors()
    lanes = []
    for lane in range(grid.lanes):
        at_anchors = [plain_x(logits[:, row, lane]) for row in range(grid.rows)]
        xs = []
        for y in rows:
            x = None
            exact = [n for n, anchor in enumerate(anchors) if abs(anchor - y) < 1e-6]
            if exact:
                x = at_anchors[exact[0]]
            else:
                above = [n for n, anchor in enumerate(anchors) if anchor < y]
                if above and above[-1] + 1 < len(anchors):
                    n = above[-1]
                    if at_anchors[n] is not None and at_anchors[n + 1] is not None:
                        share = (y - anchors[n]) / (anchors[n + 1] - anchors[n])
                        x = at_anchors[n] * (1 - share) + at_anchors[n + 1] * share
            xs.append(-2 if x is None else round(x))
        lanes.append(xs)
    return lanes


@pytest.mark.parametrize(
    "rows", [None, ROWS[8:], np.array([0.0, 159.9, 165, 170, 333.3, 710, 719])]
)
@pytest.mark.parametrize("grid", [Grid(), Grid(cells=25, rows=14), Grid(cells=50, rows=56)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lanes_equal_a_plain_reference(grid, rows, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, grid.cells + 1, grid.rows, grid.lanes), generator=generator) * 4
    logits[:, grid.cells] += 8
    logits = logits.to(dtype)
    x = decode(logits, grid, rows)
    wanted = TUSIMPLE_ROWS if rows is None else rows
    assert x.shape == (3, grid.lanes, len(wanted))
    assert x.dtype == np.float64
    expected = np.array([plain_decode(image.double(), grid, wanted) for image in logits])
    assert np.array_equal(x, expected)
    assert 0.02 < (x == -2).mean() < 0.98


def test_rows_are_those_of_submissions():
    assert TUSIMPLE_ROWS.tolist() == list(range(160, 711, 10))


def sure(cells, grid):
    """Logits that leave no doubt about cells, (rows, lanes)."""
    return (
        100.0 * torch.nn.functional.one_hot(cells, grid.cells + 1).permute(2, 0, 1)[None].double()
    )


@pytest.mark.parametrize(("cell", "x"), [(0, 6), (49, 640), (99, 1286), (100, -2)])
def test_a_cell_is_decoded_at_its_middle(cell, x):
    found = decode(sure(torch.full((56, 4), cell), Grid()), Grid())
    assert (found == x).all()


def test_the_probability_of_no_lane_does_not_move_a_lane():
    logits = torch.zeros(1, 101, 56, 4)
    logits[:, 20] = 50
    before = decode(logits, Grid())
    logits[:, 100] = 49.9
    assert np.array_equal(decode(logits, Grid()), before)
    logits[:, 100] = 50.1
    assert (decode(logits, Grid()) == -2).all()


@pytest.mark.parametrize("grid", [Grid(), Grid(cells=50, rows=28)])
def test_decoded_targets_are_the_labels(grid):
    lanes = [straight(-700), straight(250), straight(1000), straight(2000)]
    cells = torch.from_numpy(lane_targets(slot_points(lanes, ROWS), grid))
    (found,) = decode(sure(cells, grid), grid)
    both = (found >= 0) & (np.stack(lanes) >= 0)
    assert both.sum() > 0.9 * (np.stack(lanes) >= 0).sum()
    assert np.abs(found - np.stack(lanes))[both].max() < 1280 / (grid.cells - 1)


def test_between_an_absent_and_a_present_anchor_a_lane_is_absent():
    grid = Grid(rows=12)  # an anchor every 50 pixels from 160 on
    cells = torch.full((12, 4), 100)
    cells[3:6] = 30
    (found,) = decode(sure(cells, grid), grid)
    assert (ROWS[found[0] >= 0] == np.arange(310, 411, 10)).all()


def test_logits_are_left_as_they_are():
    logits = torch.randn(2, 101, 56, 4, requires_grad=True)
    kept = logits.detach().clone()
    decode(logits, Grid())
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_an_error(value):
    logits = torch.zeros(2, 101, 56, 4)
    logits[1, 3, 5, 2] = value
    with pytest.raises(NonFiniteError, match="NaN or infinite; it has diverged"):
        decode(logits, Grid())


def test_submissions_have_every_slot():
    cells = torch.full((56, 4), 100)
    cells[10:, 1] = 49
    lanes = tusimple_lanes(decode(sure(cells, Grid()), Grid())[0])
    assert lanes == [[-2] * 56, [-2] * 10 + [640] * 46, [-2] * 56, [-2] * 56]
    assert {type(x) for lane in lanes for x in lane} == {int}
