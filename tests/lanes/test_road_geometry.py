"""Lane boundaries of random roads, and the perspective that is recovered from boundaries alone."""

from itertools import pairwise

import numpy as np
import pytest

from detprune_lanes.data.roads.geometry import FOCAL, LANE_WIDTH, random_lanes
from detprune_lanes.data.roads.view import REACH, at, recover
from detprune_lanes.grid import ABSENT, FRAME_WIDTH

ROWS = np.arange(160, 711, 10)
HEIGHT, HORIZON = (
    1.6,
    236.0,
)  # of the reference camera: metres above the road, and the horizon's row

# Percentiles 5, 25, 75, 95 of the x in a row over TuSimple's 3626 training and 2782 test labels.
TUSIMPLE = {
    270: (466, 576, 735, 846),
    300: (396, 537, 784, 922),
    400: (105, 442, 884, 1229),
    600: (183, 277, 1079, 1171),
}


def pinhole(z: np.ndarray, sideways: float, bend: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """x and y of points z metres ahead on a level road that bends, ``sideways`` metres to the right."""
    return 640 + FOCAL * (sideways + bend * z**2 / 2) / z, HORIZON + FOCAL * HEIGHT / z


def level_road(
    sides: list[float], bend: float = 0.0, farthest: float = 80.0, rows: np.ndarray = ROWS
) -> np.ndarray:
    """Labels of boundaries at metres from the camera, (len(sides), len(rows))."""
    z = FOCAL * HEIGHT / np.maximum(rows - HORIZON, 1e-3)
    lanes = np.stack([pinhole(z, side, bend)[0] for side in sides])
    seen = (z <= farthest) & (lanes >= 0) & (lanes < FRAME_WIDTH)
    return np.where(seen, lanes, ABSENT)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return [random_lanes(np.random.default_rng([7, index]))[1] for index in range(600)]


def test_rows_are_tusimples() -> None:
    rows, lanes = random_lanes(np.random.default_rng(0))
    np.testing.assert_array_equal(rows, ROWS)
    assert rows.dtype == lanes.dtype == np.int64


def test_the_same_generator_gives_the_same_road() -> None:
    first, again, other = (random_lanes(np.random.default_rng(seed))[1] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_a_boundary_is_seen_in_one_stretch_inside_the_frame(drawn: list[np.ndarray]) -> None:
    for lanes in drawn:
        assert 1 <= len(lanes) <= 5
        assert lanes.shape[1] == len(ROWS)
        for lane in lanes:
            seen = lane != ABSENT
            assert ((lane[seen] >= 0) & (lane[seen] < FRAME_WIDTH)).all()
            assert seen.sum() >= 4
            assert np.abs(np.diff(seen.astype(int))).sum() <= 2


def test_boundaries_come_from_left_to_right(drawn: list[np.ndarray]) -> None:
    for lanes in drawn:
        for left, right in pairwise(lanes):
            both = (left >= 0) & (right >= 0)
            assert (left[both] < right[both]).all()


def test_all_numbers_of_boundaries_occur(drawn: list[np.ndarray]) -> None:
    counts = np.bincount([len(lanes) for lanes in drawn], minlength=6) / len(drawn)
    assert (counts[1:] > 0).all()
    assert counts[3] + counts[4] > 0.8  # TuSimple: 0.87


@pytest.mark.parametrize("row", TUSIMPLE)
def test_x_spreads_like_tusimples(drawn: list[np.ndarray], row: int) -> None:
    column = list(ROWS).index(row)
    x = np.concatenate([lanes[:, column] for lanes in drawn])
    found = np.percentile(x[x >= 0], [5, 25, 75, 95])
    np.testing.assert_allclose(found, TUSIMPLE[row], atol=45)


def test_labels_begin_where_tusimples_do(drawn: list[np.ndarray]) -> None:
    first = [ROWS[(lanes >= 0).any(axis=0)][0] for lanes in drawn]
    # TuSimple's training labels: 240, 250, 260, 270, 280
    np.testing.assert_allclose(
        np.percentile(first, [5, 25, 50, 75, 95]), [240, 250, 260, 270, 280], atol=10
    )


@pytest.mark.parametrize("bend", [0.0, 0.002, -0.004])
def test_the_horizon_of_a_level_road_is_recovered(bend: float) -> None:
    sides = [LANE_WIDTH * (k - 1.5) + 0.4 for k in range(4)]
    view = recover(level_road(sides, bend), ROWS.astype(float))
    assert view.horizon == pytest.approx(HORIZON, abs=0.01)
    assert view.growth == pytest.approx(LANE_WIDTH / HEIGHT, rel=1e-3)
    z = FOCAL * HEIGHT / (np.array([260.0, 290.0, 400.0, 700.0]) - HORIZON)
    x, y = pinhole(z, sides[0] + 0.7 * LANE_WIDTH, bend)
    np.testing.assert_allclose(view.row(z), y, atol=0.1)
    np.testing.assert_allclose(view.depth(y), z, rtol=2e-3)
    np.testing.assert_allclose(view.metre(y), FOCAL / z, rtol=2e-3)
    lateral = view.laterals[0] + 0.7
    np.testing.assert_allclose(view.x(lateral, y), x, atol=0.5)


def test_whole_pixels_hardly_move_the_horizon() -> None:
    lanes = level_road([-5.2, -1.7, 2.0, 5.6], 0.001)
    view = recover(np.where(lanes >= 0, np.rint(lanes), ABSENT), ROWS.astype(float))
    assert view.horizon == pytest.approx(HORIZON, abs=1)


def test_boundaries_keep_their_labels_and_go_on_beyond() -> None:
    sides = [-5.4, -1.8, 1.8, 5.4]
    labels = level_road(sides, farthest=40)
    labels[2, 40:] = ABSENT  # as if a bonnet hid it
    view = recover(labels, ROWS.astype(float))
    for k, lane in zip(view.labels, view.lanes, strict=True):
        seen = labels[k] >= 0
        np.testing.assert_allclose(lane[ROWS[seen]], labels[k][seen])
        rows = np.array([252.3, 300, 500, 719, 900])
        expected = 640 + sides[k] / HEIGHT * (rows - HORIZON)
        np.testing.assert_allclose(at(lane, rows), expected, atol=0.5)
    assert view.labels == (0, 1, 2, 3)
    assert view.slots == [(0, 1), (1, 2), (2, 3)]


def test_boundaries_are_sorted_from_left_to_right() -> None:
    lanes = level_road([-1.8, 1.8, 5.4, -5.4])
    view = recover(lanes, ROWS.astype(float))
    assert view.labels == (3, 0, 1, 2)
    assert (np.diff(view.laterals) > 0.9).all()


@pytest.mark.parametrize("sides", [[], [-1.8], [3.0]])
def test_one_boundary_or_none_gives_the_usual_camera(sides: list[float]) -> None:
    lanes = level_road(sides) if sides else np.empty((0, len(ROWS)))
    view = recover(lanes, ROWS.astype(float))
    assert view.growth == pytest.approx(2.2)
    assert 200 < view.horizon < 260
    assert view.lanes.shape == (len(sides), REACH)
    assert np.isfinite(view.centre).all()


def test_empty_lanes_are_no_boundaries() -> None:
    lanes = level_road([-1.8, 1.8])
    padded = np.concatenate([np.full((1, len(ROWS)), float(ABSENT)), lanes])
    view = recover(padded, ROWS.astype(float))
    assert view.labels == (1, 2)
    assert view.horizon == pytest.approx(HORIZON, abs=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_any_labels_give_a_finite_view(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(720, rng.integers(1, 60), replace=False)).astype(float)
    view = recover(rng.uniform(-300, FRAME_WIDTH - 1, (seed % 6, len(rows))), rows)
    assert 60 <= view.horizon <= 500
    assert view.growth > 1
    assert np.isfinite(view.centre).all()
    assert np.isfinite(view.lanes).all()
