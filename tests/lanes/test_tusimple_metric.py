"""TuSimple's metric against its rules as loops, and against numbers worked out by hand."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tusimple_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detprune.errors import InputError
from detprune_lanes.measure.tusimple import Scores, average, score

ROWS = 160.0 + 10 * np.arange(20)
"""Twenty rows: 17 of them are 0.85 exactly."""

NONE = np.full(20, -2.0)


def upright(x: float) -> NDArray[np.float64]:
    return np.full(20, x)


def partly(x: float, rows: int) -> NDArray[np.float64]:
    """A lane that is seen in that many rows from the top down."""
    return np.where(np.arange(20) < rows, x, -2.0)


def leaning(slope: float, x: float = 100.0) -> NDArray[np.float64]:
    return x + slope * (ROWS - ROWS[0])


def rates(found: list[Any], labelled: list[Any], run_time: float = 1.0) -> tuple[Any, Any, Any]:
    scores = score([found], [labelled], ROWS, [run_time])
    return scores.accuracy, scores.fp, scores.fn


def arrays(frames: list[reference.Frame]) -> Any:
    found, labelled, heights, times = zip(*frames, strict=True)
    return found, labelled, [np.array(each) for each in heights], times


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_frames_score_as_the_rules_say(seed: int, number: int) -> None:
    rng = np.random.default_rng(seed)
    frames = [reference.drawn_frame(rng) for _ in range(number)]
    scores = score(*arrays(frames))
    expected = np.array([reference.frame_score(frame) for frame in frames])
    for column, name in enumerate(("accuracy", "fp", "fn")):
        np.testing.assert_allclose(getattr(scores.frames, name), expected[:, column], atol=1e-12)
        assert getattr(scores, name) == pytest.approx(expected[:, column].mean(), abs=1e-12)


def test_the_drawn_frames_contain_every_odd_case() -> None:
    rng = np.random.default_rng(0)
    frames = [reference.drawn_frame(rng) for _ in range(400)]
    rated = [(frame, *reference.frame_score(frame)) for frame in frames]
    fair = [(f, *rate) for f, *rate in rated if rate != [0.0, 0.0, 1.0]]
    assert any(f.run_time > 200 for f in frames)
    assert any(len(f.found) > len(f.labelled) + 2 and f.run_time <= 200 for f in frames)
    assert any(not f.found and f.labelled for f in frames)
    assert any(not f.labelled and f.found for f, *_ in fair)
    assert any(len(f.labelled) > 4 and accuracy > 0.85 for f, accuracy, *_ in fair)
    assert any(fp < 0 for _, _, fp, _ in fair)
    assert any(fn > 1 for *_, fn in fair)
    assert any(0 < fn < 1 for *_, fn in fair)


@pytest.mark.parametrize(
    ("found", "labelled", "expected"),
    [
        pytest.param([upright(9)], [upright(9)], (1, 0, 0), id="same"),
        pytest.param([upright(119.9)], [upright(100)], (1, 0, 0), id="just-near"),
        pytest.param([upright(120)], [upright(100)], (0, 1, 1), id="20-px-are-too-far"),
        pytest.param([partly(100, 17)], [upright(100)], (0.85, 0, 0), id="0.85-is-a-hit"),
        pytest.param([partly(100, 16)], [upright(100)], (0.8, 1, 1), id="0.80-is-a-miss"),
        pytest.param([NONE], [partly(100, 3)], (0.85, 0, 0), id="unseen-rows-agree"),
        pytest.param([upright(5)], [partly(5, 1)], (0.05, 1, 1), id="single-point"),
        pytest.param([partly(24, 1)], [partly(5, 1)], (1, 0, 0), id="single-point-reach-20"),
        pytest.param([partly(25, 1)], [partly(5, 1)], (0.95, 0, 0), id="single-point-20-px"),
        pytest.param([NONE - 7], [NONE], (1, 0, 0), id="any-negative-is-unseen"),
        pytest.param([NONE * np.nan], [NONE], (1, 0, 0), id="NaN-is-unseen"),
        pytest.param([upright(np.inf)], [upright(9)], (0, 1, 1), id="infinite"),
        pytest.param([upright(0)], [upright(0)], (1, 0, 0), id="left-edge-is-seen"),
        # 20 / cos(arctan(0.75)) = 25
        pytest.param([leaning(0.75, 124.9)], [leaning(0.75)], (1, 0, 0), id="slope-near"),
        pytest.param([leaning(0.75, 125.1)], [leaning(0.75)], (0, 1, 1), id="slope-far"),
        pytest.param(
            [np.where(ROWS < 180, leaning(0.75, 24), -2)],
            [np.where(ROWS < 180, leaning(0.75, 0), -2)],
            (1, 0, 0),
            id="left-edge-counts-for-the-slope",
        ),
        # the found lane's slope does not matter: they are 0 … 190 px apart, 20 is the limit
        pytest.param([leaning(1)], [upright(100)], (0.1, 1, 1), id="reach-of-labelled"),
        # 20 / cos(arctan(5)) = 102 reaches from -100, an unseen row, to 1
        pytest.param(
            [np.where(leaning(5, 0) < 500, leaning(5, 0), 1.0)],
            [np.where(leaning(5, 0) < 500, leaning(5, 0), -2.0)],
            (1, 0, 0),
            id="steep-reaches-outside",
        ),
        pytest.param([], [upright(9)], (0, 0, 1), id="nothing-found"),
        pytest.param([upright(9)], [], (0, 1, 0), id="nothing-labelled"),
        pytest.param([], [], (0, 0, 0), id="nothing-at-all"),
        pytest.param([upright(9)], [upright(9), upright(19)], (1, -1, 0), id="one-for-two"),
        pytest.param([upright(9)] * 3, [upright(9)], (1, 2 / 3, 0), id="two-too-many"),
        pytest.param([upright(9)] * 4, [upright(9)], (0, 0, 1), id="three-too-many"),
    ],
)
def test_by_hand(found: list[Any], labelled: list[Any], expected: tuple[float, ...]) -> None:
    assert rates(found, labelled) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labelled", "hit", "expected"),
    [
        (4, 4, (1, 0, 0)),
        (4, 3, (0.75, 0, 0.25)),
        (5, 5, (1, 0, 0)),
        (5, 4, (1, 0, 0)),  # the missed lane is forgiven and left out
        (5, 3, (0.75, 0, 0.25)),
        (6, 6, (1.25, 0, 0)),  # five accuracies over four
        (6, 4, (1, 0, 0.25)),
        (6, 1, (0.25, 0, 1)),
        (6, 0, (0, 0, 1.25)),
    ],
)
def test_more_than_four_labelled_lanes(
    labelled: int, hit: int, expected: tuple[float, float, float]
) -> None:
    lanes = [upright(100.0 * (lane + 1)) for lane in range(labelled)]
    assert rates(lanes[:hit], lanes) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("run_time", "expected"), [(200, (1, 0, 0)), (200.01, (0, 0, 1)), (float("nan"), (1, 0, 0))]
)
def test_slow_frames_are_lost(run_time: float, expected: tuple[float, ...]) -> None:
    assert rates([upright(9)], [upright(9)], run_time) == expected


@pytest.mark.parametrize("slope", [0.0, 0.75, -0.75, 1.05, -1.05, 2.4, -2.4, 4.95])
@pytest.mark.parametrize("size", [20, 41, 45, 56])
def test_a_distance_equal_to_the_threshold_falls_as_with_scikit_learn(
    slope: float, size: int
) -> None:
    """The threshold is 20, 25, 29, 52 or 101 px but for rounding, which is the original's."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    y = 160.0 + 20 * np.arange(size)
    x = np.round(6000 + slope * (y - 160))
    fit = linear_model.LinearRegression().fit(y[:, None], x)
    threshold = 20 / np.cos(np.arctan(fit.coef_[0]))
    limit = round(threshold)
    assert abs(threshold - limit) < 1e-9
    for distance in (limit - 1, limit, limit + 1):
        found = score([[x + distance]], [[x]], y)
        assert found.accuracy == float(distance < threshold)


def test_thresholds_are_those_of_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(1)
    for _ in range(50):
        x = rng.uniform(300, 900) + rng.uniform(-6, 6) * (ROWS - 250) + rng.normal(0, 30, 20)
        x[rng.random(20) < 0.3] = -2
        points = x >= 0
        fit = linear_model.LinearRegression().fit(ROWS[points, None], x[points])
        threshold = 20 / np.cos(np.arctan(fit.coef_[0]))
        for factor, expected in ((1 - 1e-9, 1.0), (1 + 1e-9, 1 - points.mean())):
            other = np.where(points, x + factor * threshold, -2)
            assert score([[other]], [[x]], ROWS).accuracy == pytest.approx(expected)


def test_the_mean_over_frames_and_f1() -> None:
    found = [[upright(9)], [upright(9), upright(300)], []]
    labelled = [[upright(9)], [upright(9)], [upright(9)]]
    scores = score(found, labelled, ROWS)
    assert (scores.accuracy, scores.fp, scores.fn) == pytest.approx((2 / 3, 1 / 6, 1 / 3))
    assert scores.f1 == pytest.approx(2 * (5 / 6) * (2 / 3) / (5 / 6 + 2 / 3))
    np.testing.assert_allclose(scores.frames.fp, [0, 0.5, 0])
    assert scores == dataclasses.replace(scores)


@pytest.mark.parametrize(
    ("fp", "fn", "f1"),
    [
        (0.1905, 0.0392, 0.8786845),
        (1, 0, 0),
        (0, 1, 0),
        (1, 1, 0),
        (0, 1.25, 0),
        (-1, 0, 4 / 3),
    ],
)
def test_f1(fp: float, fn: float, f1: float) -> None:
    frames = score([[NONE]], [[NONE]], ROWS).frames
    frames = dataclasses.replace(frames, fp=np.array([fp]), fn=np.array([fn]))
    assert average(frames, 1).f1 == pytest.approx(f1, abs=1e-7)


def test_padded_arrays_score_as_lists_and_are_left_alone() -> None:
    rng = np.random.default_rng(2)
    labelled = np.round(rng.uniform(0, 1280, (6, 4, 20)))
    labelled[rng.random((6, 4)) < 0.3] = -2
    found = np.where(labelled >= 0, labelled + rng.normal(0, 12, labelled.shape), -2)
    before = found.copy(), labelled.copy()
    whole = score(found, labelled, ROWS)
    assert whole == score([list(f) for f in found], [tuple(f) for f in labelled], [ROWS] * 6)
    np.testing.assert_array_equal((found, labelled), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], ROWS), r"found in 0 frames, .*at least one"),
        (([[]], [[], []], ROWS), r"lanes found in 1 frames, lanes labelled in 2"),
        (([[]], [[]], [ROWS, ROWS]), r"rows of 2"),
        (([[]], [[]], ROWS, [1.0, 2.0]), r"run times of shape \(2,\)"),
        (([[NONE]], [[NONE[1:]]], ROWS), r"labelled in frame 0: an x for \(19,\) rows.*\(20,\)"),
        (([[NONE, 3.0]], [[]], ROWS), r"found in frame 0: an x for \(\) or \(20,\) rows"),
        (([np.zeros((2, 3, 20))], [[]], ROWS), r"an x for \(3, 20\) rows"),
        (([[]], [[]], [np.zeros(0)]), r"an x for no rows, and y for \(0,\); .*there is a row"),
    ],
)
def test_sizes_that_do_not_fit(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(*arguments)


def test_scores_are_plain_numbers() -> None:
    scores = score([[NONE]], [[NONE]], ROWS)
    assert isinstance(scores, Scores)
    assert {type(getattr(scores, name)) for name in ("accuracy", "fp", "fn", "f1")} == {float}
