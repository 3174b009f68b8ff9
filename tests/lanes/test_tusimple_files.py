"""TuSimple's files: what is scored, what is refused, and ``detprune evaluate tusimple``.

The expected verdicts are those of the benchmark's script, evaluation/tusimple/lane.py.
"""

import copy
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tusimple_reference as reference
import typer
from typer.testing import CliRunner

from detprune.errors import InputError
from detprune_lanes.measure.command import evaluate_tusimple
from detprune_lanes.measure.submission import (
    evaluate_files,
    read_ground_truth,
    read_submission,
)

ROWS = list(range(160, 360, 10))
LANE = [500 + row for row in range(20)]
FAR = [1000] * 20

TRUTH: list[Any] = [
    {"raw_file": "clips/a/20.jpg", "lanes": [LANE, [-2] * 20], "h_samples": ROWS, "classes": [1]},
    {"raw_file": "clips/b/20.jpg", "lanes": [], "h_samples": ROWS[:10]},
]
FOUND: list[Any] = [
    {"raw_file": "clips/b/20.jpg", "lanes": [], "run_time": 10},
    {"raw_file": "clips/a/20.jpg", "lanes": [LANE, [-2] * 20], "run_time": 7.5, "note": "x"},
]

Change = Callable[[list[Any]], object]


def text(lines: list[Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def files(
    folder: Path, found: list[Any] | str, truth: list[Any] | str = TRUTH
) -> tuple[Path, Path]:
    paths = folder / "found.json", folder / "truth.json"
    for path, lines in zip(paths, (found, truth), strict=True):
        path.write_text(lines if isinstance(lines, str) else text(lines), encoding="utf-8")
    return paths


def changed(change: Change) -> list[Any]:
    found = copy.deepcopy(FOUND)
    change(found)
    return found


def put(key: str, value: Any, line: int = 1) -> Change:
    return lambda found: found[line].update({key: value})


def lane(value: Any) -> Change:
    """The first value of the first lane becomes another."""

    def change(found: list[Any]) -> None:
        found[1]["lanes"][0][0] = value

    return change


def test_frames_are_found_by_name(tmp_path: Path) -> None:
    scores = evaluate_files(*files(tmp_path, FOUND))
    assert (scores.accuracy, scores.fp, scores.fn) == (0.5, 0, 0)
    np.testing.assert_array_equal(scores.frames.accuracy, [0, 1])


def test_a_drawn_submission_scores_as_the_rules_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frames = [reference.drawn_frame(rng) for _ in range(60)]
    truth = [
        {
            "raw_file": f"{number}.jpg",
            "lanes": [list(x) for x in frame.labelled],
            "h_samples": frame.heights,
        }
        for number, frame in enumerate(frames)
    ]
    found = [
        {
            "raw_file": f"{number}.jpg",
            "lanes": [list(x) for x in frame.found],
            "run_time": frame.run_time,
        }
        for number, frame in enumerate(frames)
    ]
    order = rng.permutation(60)
    scores = evaluate_files(*files(tmp_path, [found[i] for i in order], truth))
    rates = np.array([reference.frame_score(frame) for frame in frames])
    np.testing.assert_allclose(scores.frames.fp, rates[order, 1], atol=1e-12)
    found_rates = scores.accuracy, scores.fp, scores.fn
    np.testing.assert_allclose(found_rates, rates.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lane(True), (0.4875, 0, 0), id="true-is-1"),
        pytest.param(lane(math.nan), (0.4875, 0, 0), id="NaN-is-unseen"),
        pytest.param(lane(math.inf), (0.4875, 0, 0), id="infinite"),
        pytest.param(lane(-math.inf), (0.4875, 0, 0), id="minus-infinite"),
        pytest.param(lane(10**400), (0.4875, 0, 0), id="more-than-a-float-holds"),
        pytest.param(lane(-(10**30)), (0.4875, 0, 0), id="below-64-bits"),
        pytest.param(lane(512.25), (0.5, 0, 0), id="float"),
        pytest.param(put("run_time", True), (0.5, 0, 0), id="run-time-true"),
        pytest.param(put("run_time", math.nan), (0.5, 0, 0), id="run-time-NaN"),
        pytest.param(put("run_time", 200), (0.5, 0, 0), id="run-time-200"),
        pytest.param(put("run_time", 10**400), (0, 0, 0.5), id="run-time-huge"),
        pytest.param(put("run_time", 201, line=0), (0.5, 0, 0.5), id="slow-without-lanes"),
        # what is in a lane is not looked at where it is compared with nothing
        pytest.param(put("lanes", [[None] * 10], line=0), (0.5, 0.5, 0), id="no-labelled-lanes"),
        pytest.param(put("lanes", [["x"] * 20] * 5), (0, 0, 0.5), id="hopeless"),
        # frame a twice, b never: sums over the lines of the submission
        pytest.param(put("raw_file", "clips/a/20.jpg", line=0), (0.5, 0, 0.5), id="duplicate"),
    ],
)
def test_accepted(tmp_path: Path, change: Change, expected: tuple[float, ...]) -> None:
    scores = evaluate_files(*files(tmp_path, changed(change)))
    assert (scores.accuracy, scores.fp, scores.fn) == pytest.approx(expected)


def test_of_a_duplicate_in_the_ground_truth_the_last_counts(tmp_path: Path) -> None:
    """Two lines of submission over one different frame: rates add up, as in the script."""
    other = {**TRUTH[0], "lanes": [FAR]}
    found = [FOUND[1], FOUND[1]]
    scores = evaluate_files(*files(tmp_path, found, [other, TRUTH[0]]))
    assert (scores.accuracy, scores.fp, scores.fn) == (2, 0, 0)
    scores = evaluate_files(*files(tmp_path, found, [TRUTH[0], other]))
    assert (scores.accuracy, scores.fp, scores.fn, scores.f1) == (0, 2, 2, 0)


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_line_ends(tmp_path: Path, ending: str) -> None:
    lines = ending.join(text(FOUND).splitlines()) if ending else text(FOUND)[:-1]
    path = tmp_path / "found.json"
    path.write_bytes(lines.encode())
    assert len(read_submission(path)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (text(FOUND).replace("\n", "\n\n"), r"found.json:2 is not JSON but '' .*no empty lines"),
        (text(FOUND) + "\n", r"found.json:3 is not JSON but ''"),
        (text(FOUND)[:-9], r"found.json:2 is not JSON but '\{\"raw_file\": \"clips/a"),
        ("\ufeff" + text(FOUND), r"found.json:1 is not JSON .*BOM"),
        ("[" * 100_000, r"found.json:1 is not JSON"),
        (json.dumps(FOUND, indent=1), r"found.json:1 is not JSON but '\['"),
        ("", r"found.json has 0 lines, and the ground truth 2; write one line for every frame"),
        (text(FOUND[:1]), r"not the predictions of all frames: .* has 1 lines"),
        (text(FOUND + FOUND[:1]), r"not the predictions of all frames: .* has 3 lines"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_files(*files(tmp_path, content))


@pytest.mark.parametrize("secret", ["KEY=secret", '"secret"', '["secret"]'])
def test_a_link_to_another_file_is_not_quoted(tmp_path: Path, secret: str) -> None:
    found, truth = files(tmp_path, FOUND)
    (tmp_path / "env").write_text(f"{secret}\n", encoding="utf-8")
    link = tmp_path / "link.json"
    link.symlink_to("env")
    for given in ((link, truth), (found, link)):
        with pytest.raises(InputError, match=r"link\.json:1 is no") as error:
            evaluate_files(*given)
        assert "secret" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    found, truth = files(tmp_path, FOUND)
    missing = tmp_path / "missing.json"
    with pytest.raises(InputError, match=r"predictions cannot be loaded: .*missing.json: No such"):
        evaluate_files(missing, truth)
    with pytest.raises(InputError, match=r"ground truth cannot be loaded: .*missing.json: No such"):
        evaluate_files(found, missing)
    with pytest.raises(InputError, match="it is a folder, not a file"):
        evaluate_files(tmp_path, truth)
    found.write_bytes(b'{"raw_file": "\xff"}\n')
    with pytest.raises(InputError, match=r"found.json is no text in UTF-8"):
        evaluate_files(found, truth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda found: found[1].pop("run_time"),
            r"incomplete prediction: .*found.json:2 has no run_time, but raw_file, lanes, note",
        ),
        (lambda found: found[0].clear(), r"found.json:1 has no raw_file and no lanes and no run"),
        (
            lambda found: found.__setitem__(0, None),
            r"found.json:1 is None; it is an object of raw_f",
        ),
        (lambda found: found.__setitem__(0, ["raw_file", "lanes", "run_time"]), r"is \['raw_file'"),
        (
            lambda found: found.__setitem__(0, "raw_file lanes run_time"),
            r"is 'raw_file lanes run_t",
        ),
        (
            put("raw_file", "clips/a/21.jpg"),
            r"no test frame: .*:2 has 'clips/a/21.jpg' \(did you mean 'clips/a/20.jpg'\?\); take",
        ),
        (put("raw_file", 7), r"no test frame: .*found.json:2 has 7; it is a text"),
        (put("raw_file", ["clips/a/20.jpg"]), r"no test frame: .* has \['clips/a/20.jpg'\]"),
        (put("lanes", None), r"format of lanes: .*found.json:2: lanes is None; it is a list"),
        (put("lanes", 3, line=0), r"format of lanes: .*found.json:1: lanes is 3"),
        (put("lanes", [LANE, FAR[1:]]), r"lane 1 has 19 values; the frame has 20 rows"),
        (put("lanes", [[1] * 20], line=0), r":1: lane 0 has 20 values; the frame has 10 rows"),
        (put("lanes", [[1]] * 9), r"lane 0 has 1 values"),  # even if there are too many lanes
        (put("lanes", [500, 510]), r"format of lanes: .*lane 0 is 500; .*\(h_samples\)"),
        (lane(None), r":2: lane 0: value 0 is None; allowed are numbers, in pixels, -2 where"),
        (lane("500"), r"lane 0: value 0 is '500'"),
        (lane([500]), r"lane 0: value 0 is \[500\]"),
        (lane({}), r"lane 0: value 0 is \{\}"),
        (
            put("run_time", None),
            r"format of lanes: .*found.json:2: run_time is None; it is a number",
        ),
        (put("run_time", "10", line=0), r"found.json:1: run_time is '10'"),
        # refused here only
        (put("lanes", {}), r"lanes is \{\}; it is a list"),
        (put("lanes", ""), r"lanes is ''; it is a list"),
        (put("lanes", [[[x] for x in LANE]]), r"lane 0: value 0 is \[500\]"),
    ],
)
def test_predictions_that_are_refused(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_files(*files(tmp_path, changed(change)))


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate_files(*files(tmp_path, changed(put("lanes", "x" * 100_000))))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (None, r"truth.json is empty; give TuSimple's test_label.json"),
        ([], r"format of the ground truth: .*truth.json:1 is \[\]; it is an object of raw_file"),
        ({"h_samples": None}, r"truth.json:1: h_samples is None; it is a list of the rows' y"),
        ({"h_samples": []}, r"h_samples is \[\]"),
        ({"h_samples": ["160", *ROWS[1:]]}, r"h_samples: value 0 is '160'; allowed are numbers"),
        (
            {"h_samples": [math.nan, *ROWS[1:]]},
            r"h_samples does not go down the frame; its y increase, and",
        ),
        ({"h_samples": ROWS[1:]}, r"truth.json:1: lane 0 has 20 values; the frame has 19 rows"),
        (
            {"lanes": [[math.inf, *LANE[1:]]]},
            r"an x is inf; allowed are pixels of a frame 1280 wide, -2 where",
        ),
        ({"lanes": [[10**400, *LANE[1:]]]}, r"an x is 1e\+300"),
        ({"lanes": [[None, *LANE[1:]]]}, r"truth.json:1: lane 0: value 0 is None"),
        ({"lanes": [[math.nan, *LANE[1:]]]}, r"an x is nan; allowed are pixels"),
        ({"lanes": [LANE, [1280, *LANE[1:]]]}, r"an x is 1280; allowed"),
        ({"lanes": [["x", *LANE[1:]]]}, r"truth.json:1: lane 0: value 0 is 'x'"),
        ({"lanes": [[x / 1280 for x in LANE]]}, r"truth.json:1: no x is beyond 1; x and h_samples"),
        ({"lanes": [[-2] * 19 + [True], [-2] * 19 + [0]]}, r"no x is beyond 1"),
        (
            {"h_samples": [y / 720 for y in ROWS]},
            r"truth.json:1: no y is beyond 1; x and h_samples",
        ),
        ({"h_samples": ROWS[::-1]}, r"truth.json:1: h_samples does not go down the frame"),
        ({"h_samples": [*ROWS[:-1], ROWS[-2]]}, r"h_samples does not go down the frame"),
        ({"h_samples": [*ROWS[:-1], 720]}, r"h_samples does not go down the frame; .* 0 and 719"),
        ({"h_samples": [-1, *ROWS[1:]]}, r"h_samples does not go down the frame"),
        ({"lanes": []}, r"truth.json has no lanes: lanes is empty in its 2 labels, as in TuSimple"),
        ({"lanes": [[-2] * 20] * 3}, r"has no lanes: every x of its 2 labels is negative"),
        ({"lanes": 3}, r"lanes is 3; it is a list"),
        ({"raw_file": 3}, r"raw_file is 3; it is a text"),
    ],
)
def test_ground_truth_that_is_refused(tmp_path: Path, line: Any, message: str) -> None:
    truth = [{**TRUTH[0], **line} if isinstance(line, dict) else line, TRUTH[1]]
    with pytest.raises(InputError, match=message):
        evaluate_files(*files(tmp_path, FOUND, "" if line is None else truth))


def test_a_list_of_frames_to_be_tested_is_no_ground_truth(tmp_path: Path) -> None:
    """TuSimple's test_tasks_0627.json, in both forms in which it is found."""
    for line in ({"h_samples": ROWS, "run_time": 1000}, {"h_samples": ROWS, "lanes": []}):
        tasks = [{"raw_file": f"clips/{name}/20.jpg", **line} for name in "ab"]
        paths = files(tmp_path, FOUND, tasks)
        with pytest.raises(InputError, match=r"in its 2 labels, .*test_tasks_0627.json; give the"):
            evaluate_files(*paths)


def test_predictions_in_fractions_are_refused_and_none_at_all_are_not(tmp_path: Path) -> None:
    found = changed(put("lanes", [[x / 1280 for x in LANE]]))
    with pytest.raises(InputError, match=r"no x in .*found.json is beyond 1, as if in fractions"):
        evaluate_files(*files(tmp_path, found))
    for lanes in ([], [[-2] * 20] * 4, [[-2] * 19 + [1]]):
        scores = evaluate_files(*files(tmp_path, changed(put("lanes", lanes))))
        assert scores.fn >= 0.25


def test_a_submission_is_no_ground_truth(tmp_path: Path) -> None:
    found, _ = files(tmp_path, FOUND)
    with pytest.raises(
        InputError, match=r"found.json:1 has no h_samples, but raw_file, lanes, run"
    ):
        read_ground_truth(found)


def test_what_is_read(tmp_path: Path) -> None:
    found, truth = files(tmp_path, FOUND)
    first, second = read_ground_truth(truth)
    assert (first.raw_file, first.place) == ("clips/a/20.jpg", f"{truth}:1")
    np.testing.assert_array_equal(first.lanes, [LANE, [-2] * 20])
    np.testing.assert_array_equal(first.rows, ROWS)
    assert (second.lanes.shape, second.lanes.dtype) == ((0, 10), np.float64)
    submitted = read_submission(found)[1]
    assert (submitted.raw_file, submitted.run_time) == ("clips/a/20.jpg", 7.5)
    assert (submitted.lanes, submitted.place) == ([LANE, [-2] * 20], f"{found}:2")


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    found, truth = files(tmp_path, changed(put("lanes", [LANE, FAR, [-2] * 20])))
    app = typer.Typer()
    app.command()(evaluate_tusimple)
    done = CliRunner().invoke(app, ["--predictions", str(found), "--annotations", str(truth)])
    assert done.exit_code == 0
    fp = 1 / 6
    assert json.loads(done.stdout) == {
        "accuracy": 0.5,
        "fp": pytest.approx(fp),
        "fn": 0.0,
        "f1": pytest.approx(2 * (1 - fp) / (2 - fp)),
        "frames": 2,
    }
    done = CliRunner().invoke(app, ["--predictions", str(truth), "--annotations", str(truth)])
    assert isinstance(done.exception, InputError)


def test_the_command_loads_no_framework() -> None:
    program = (
        "import sys\n"
        "sys.argv = ['detprune', 'evaluate', 'tusimple', '--help']\n"
        "from detprune.run.cli.main import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit:\n"
        "    heavy = {'lightning', 'ultralytics', 'torchvision', 'albumentations'}\n"
        "    print('loaded', sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "loaded []" in output.stdout, output.stdout + output.stderr
