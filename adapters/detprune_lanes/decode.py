"""Decoding of logits to lanes, as Ultra-Fast-Lane-Detection does it for TuSimple.

Qin, Wang and Li, "Ultra Fast Structure-aware Deep Lane Detection", ECCV 2020, equations 5 and 6, and
``generate_tusimple_lines`` in the original's ``evaluation/eval_wrapper.py``.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detprune.errors import NonFiniteError
from detprune_lanes.grid import ABSENT, FRAME_WIDTH, Grid

TUSIMPLE_ROWS: NDArray[np.float64] = np.arange(160.0, 711.0, 10.0)
"""y of the rows in which submissions are written, pixels of the 1280x720 frame."""

_SAME_ROW = 1e-6  # pixels


def decode(
    logits: Tensor, grid: Grid, rows: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """x of every lane in every row, (N, lanes, R): whole pixels of the frame, -2 for no lane.

    In an anchor row a lane is absent if class ``cells`` has the largest logit; else its cell is the
    expectation of 0 … cells − 1 under the softmax of the others, and x = (cell + 0.5) · 1280 / (cells
    − 1), rounded, halves to the even number. That x may be as large as 1286. Between anchor rows x is
    linear, and absent if one of the two neighbours is; above the first and below the last anchor row
    a lane is absent.

    Args:
        logits: (N, cells + 1, rows, lanes).
        grid: the grid they belong to.
        rows: y of the rows that are wanted, (R,), pixels of the frame; None for TuSimple's 160, 170, …, 710.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    scores = logits.detach().cpu().double()
    if not bool(scores.isfinite().all()):
        raise NonFiniteError("logits of the lane network are NaN or infinite; it has diverged")
    cells = torch.arange(grid.cells, dtype=torch.float64)
    expected = torch.einsum("ncrl,c->nlr", scores[:, : grid.cells].softmax(dim=1), cells)
    absent = (scores.argmax(dim=1) == grid.cells).transpose(1, 2)
    x = (expected + 0.5) * (FRAME_WIDTH / (grid.cells - 1))
    found = torch.where(absent, torch.nan, x).numpy()
    return np.nan_to_num(
        np.rint(_at_rows(found, grid.anchors(), TUSIMPLE_ROWS if rows is None else rows)),
        nan=ABSENT,
    )


def _at_rows(
    x: NDArray[np.float64], anchors: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """x, (N, lanes, anchors) with NaN for absent, at other rows, (N, lanes, R)."""
    below = np.clip(np.searchsorted(anchors, rows), 1, len(anchors) - 1)
    above = below - 1
    share = (rows - anchors[above]) / (anchors[below] - anchors[above])
    between = x[..., above] * (1 - share) + x[..., below] * share
    for neighbour in (above, below):  # a row that is an anchor has no second neighbour
        same = np.abs(rows - anchors[neighbour]) < _SAME_ROW
        between = np.where(same, x[..., neighbour], between)
    outside = (rows < anchors[0] - _SAME_ROW) | (rows > anchors[-1] + _SAME_ROW)
    return np.where(outside, np.nan, between)


def tusimple_lanes(points: NDArray[np.float64]) -> list[list[int]]:
    """The lanes of one frame in the form of submissions, from x of (lanes, R).

    As in the original, every slot is one lane, even if it is absent in all rows; the metric counts
    such a lane as a false positive.
    """
    return [[int(x) for x in lane] for lane in points]
