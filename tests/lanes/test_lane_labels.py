import json
import re

import cv2
import numpy as np
import pytest
from lane_files import ROWS, blotches, label, straight, write_image, write_lines
from lane_recipe import TINY

from detprune.errors import InputError
from detprune.run.recipe import validate
from detprune_lanes.data.labels import read_labels
from detprune_lanes.recipe import LaneRecipe
from detprune_lanes.task import LaneNetworkTask


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    for name in "ab":
        write_image(folder / f"clips/{name}/20.jpg", blotches(0, (72, 128)))
    return folder


def test_a_frame_is_what_its_line_says(root):
    file = write_lines(
        root / "label_data_1.json",
        [label("clips/b/20.jpg", lanes=[[-2, 5.5, 7]], h_samples=[160, 170, 185])],
    )
    (frame,) = read_labels([file], root)
    assert frame.raw_file == "clips/b/20.jpg"
    assert frame.image == (root / "clips/b/20.jpg").resolve()
    assert frame.rows.tolist() == [160, 170, 185]
    assert [x.tolist() for x in frame.lanes] == [[-2, 5.5, 7]]
    assert frame.place == "label_data_1.json:1"


def test_frames_are_in_the_order_of_files_and_lines(root):
    first = write_lines(root / "2.json", [label("b.jpg"), label("a.jpg")])
    second = write_lines(root / "1.json", [label("c.jpg")])
    frames = read_labels([first, second], root, check_images=False)
    assert [f.raw_file for f in frames] == ["b.jpg", "a.jpg", "c.jpg"]
    assert [f.place for f in frames] == ["2.json:1", "2.json:2", "1.json:1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"h_samples": list(range(240, 711, 10)), "lanes": [[-2] * 48, list(range(48))]},
        {"lanes": []},
        {"lanes": [[-2] * 56]},
        {"lanes": [[-2] * 55 + [1]]},
        {"lanes": [straight(x).tolist() for x in (-400, 200, 600, 900, 1200, 1500)]},
        {"h_samples": [160], "lanes": [[7]], "classes": [1]},
    ],
)
def test_rows_and_lanes_may_be_of_any_number(root, changes):
    file = write_lines(root / "labels.json", [label(**changes), label("clips/b/20.jpg")])
    frame, _ = read_labels([file], root)
    expected = label(**changes)
    assert frame.rows.tolist() == expected["h_samples"]
    assert [x.tolist() for x in frame.lanes] == expected["lanes"]


def test_blank_lines_and_a_byte_order_mark_do_no_harm(root):
    text = "﻿" + json.dumps(label()) + "\r\n\n" + json.dumps(label("clips/b/20.jpg")) + "\n\n \n"
    (root / "labels.json").write_text(text, encoding="utf-8")
    frames = read_labels([root / "labels.json"], root)
    assert [f.place for f in frames] == ["labels.json:1", "labels.json:3"]


WRONG = {
    "not JSON": (
        '{"raw_file": ',
        r"no JSON object \(1\): l.json:2; a label is one",
    ),
    "a list": ([1, 2], r"no JSON object \(1\): l.json:2; a label is one"),
    "nested": ("[" * 100_000, r"no JSON object \(1\): l.json:2; a label is one"),
    "no keys": (
        {"raw_file": "x"},
        r"missing keys \(1\): l.json:2 \(lanes, h_samples\); a label has raw_file",
    ),
    "short lane": (
        label("clips/b/20.jpg", lanes=[[1, 2]]),
        r"than there are rows \(1\): l.json:2 lanes\[0\] \(2 values, 56 h_samples\)",
    ),
    "text": (
        label("clips/b/20.jpg", lanes=[["1"] * 56]),
        r"else than numbers \(1\): l.json:2 lanes\[0\]; h_samples is",
    ),
    "truth": (
        label("clips/b/20.jpg", lanes=[[True] * 56]),
        r"else than numbers \(1\): l.json:2 lanes\[0\]",
    ),
    "NaN": (
        label("clips/b/20.jpg", lanes=[[float("nan")] * 56]),
        r"else than numbers \(1\): l.json:2 lanes\[0\]",
    ),
    "infinite": (
        label("clips/b/20.jpg", lanes=[[float("inf")] * 56]),
        r"else than numbers \(1\): l.json:2",
    ),
    "huge": (label("clips/b/20.jpg", lanes=[[10**400] * 56]), r"else than numbers \(1\): l.json:2"),
    "lanes no list": (
        label("clips/b/20.jpg", lanes=7),
        r"else than numbers \(1\): l.json:2 lanes\[0\]",
    ),
    "rows no list": (
        label("clips/b/20.jpg", h_samples="160"),
        r"else than numbers \(1\): l.json:2 h_samples",
    ),
    "equal rows": (
        label("clips/b/20.jpg", h_samples=[160, 160], lanes=[]),
        r"do not go down the image \(1\): l.json:2; h_samples increases",
    ),
    "rows below": (
        label("clips/b/20.jpg", h_samples=[160, 720], lanes=[]),
        r"do not go down the image \(1\): l.json:2;.*between 0 and 719",
    ),
    "no rows": (
        label("clips/b/20.jpg", h_samples=[], lanes=[]),
        r"do not go down the image \(1\): l.json:2",
    ),
    "wide": (
        label("clips/b/20.jpg", lanes=[[1600] * 56]),
        r"right edge \(1\): l.json:2 lanes\[0\] \(x = 1600\); x is in pixels of an image 1280 wide",
    ),
    "shares": (
        label("clips/b/20.jpg", lanes=[(straight(200) / 1280).tolist(), [-2] * 56]),
        r"fractions of the image \(1\): l.json:2 lanes \(x up to 0.* wide and 720 high: multiply",
    ),
    "shares of rows": (
        label("clips/b/20.jpg", h_samples=(ROWS / 720).tolist()),
        r"fractions of the image \(1\): l.json:2 h_samples \(up to 0.986111\); x and h_samples",
    ),
    "negative rows": (
        label("clips/b/20.jpg", h_samples=[-1, *range(170, 720, 10)]),
        r"do not go down the image \(1\): l.json:2",
    ),
    "falling rows": (
        label("clips/b/20.jpg", h_samples=ROWS[::-1].tolist()),
        r"do not go down the image \(1\): l.json:2",
    ),
    "just too wide": (
        label("clips/b/20.jpg", lanes=[[1280] * 56]),
        r"right edge \(1\): l.json:2 lanes\[0\] \(x = 1280\)",
    ),
    "no name": (label(7), r"no file name \(1\): l.json:2 `7`"),
    "null byte": (label("clips/\0"), r"no file name \(1\): l.json:2"),
    "missing": (
        label("clips/c/20.jpg"),
        r"do not exist \(1\): l.json:2 `clips/c/20.jpg`; unpack the images",
    ),
    "of Windows": (label(r"clips\a\20.jpg"), r"do not exist \(1\).*/ between folders, not a back"),
    "a folder": (label("clips/b"), r"do not exist \(1\): l.json:2 `clips/b`"),
    "upwards": (
        label("../root2/x.jpg"),
        r"outside the root \(1\): l.json:2 `../root2/x.jpg`; raw_file is a path below",
    ),
    "absolute": (label("/etc/hostname"), r"outside the root \(1\): l.json:2 `/etc/hostname`"),
    "symlink": (label("link/x.jpg"), r"outside the root \(1\): l.json:2 `link/x.jpg`"),
    "twice": (
        label("clips/../clips/a/20.jpg"),
        r"more than one label \(1\): l.json:2 `clips/../clips/a/20.jpg` \(also l.json:1\)",
    ),
}


@pytest.mark.parametrize(("line", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_with_its_place(root, tmp_path, line, message):
    write_image(tmp_path / "elsewhere/x.jpg", blotches(0, (72, 128)))
    (root / "link").symlink_to(tmp_path / "elsewhere")
    file = write_lines(root / "l.json", [label(), line])
    with pytest.raises(InputError, match=f"(?s)cannot be used as it is:\n- .*{message}") as caught:
        read_labels([file], root)
    assert str(caught.value).count("\n- ") == 1


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        ({"run_time": 1000}, "no key lanes in its 2 labels, as in TuSimple's list of frames to be"),
        ({"lanes": []}, r"lanes is empty in its 2 labels, .*test_tasks_0627.json\); give the file"),
        ({"lanes": [[-2] * 56] * 4}, "every x of its 2 labels is negative: no lane is seen"),
        ({"lanes": [[-1.5] * 3]}, "every x of its 2 labels is negative"),
        ({"lanes": [[]]}, "every x of its 2 labels is negative"),
    ],
)
def test_a_file_without_a_lane_is_refused(root, line, looks):
    tasks = [{"raw_file": f"{n}.jpg", "h_samples": ROWS.tolist(), **line} for n in "ab"]
    files = [
        write_lines(root / "good.json", [label(), label("clips/b/20.jpg", lanes=[])]),
        write_lines(root / "test_tasks_0627.json", tasks),
    ]
    with pytest.raises(InputError) as caught:
        read_labels(files, root)
    pattern = rf"without a single lane \(1\): test_tasks_0627.json \({looks}"
    assert re.search(pattern, str(caught.value))
    assert str(caught.value).count("\n- ") == 1
    assert len(read_labels(files[:1], root)) == 2


def test_an_absolute_name_is_refused_below_the_root_too(root):
    file = write_lines(root / "l.json", [label(str(root / "clips/a/20.jpg"))])
    with pytest.raises(InputError, match=r"outside the root \(1\): l.json:1"):
        read_labels([file], root)


def test_a_root_may_itself_be_a_symbolic_link(root, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(root)
    file = write_lines(root / "l.json", [label("clips/./a/20.jpg")])
    (frame,) = read_labels([file], link)
    assert frame.image == (root / "clips/a/20.jpg").resolve()


def test_problems_of_all_files_are_named_at_once(root):
    first = write_lines(root / "1.json", [label(f"none/{n}.jpg") for n in range(5)])
    second = write_lines(
        root / "2.json", ["x", label(), label(lanes=[[0]]), label("clips/b/20.jpg")]
    )
    empty = write_lines(root / "3.json", ["", " "])
    missing = root / "4.json"
    with pytest.raises(InputError) as caught:
        read_labels([first, second, empty, missing], root)
    text = str(caught.value)
    assert "`none/0.jpg`, 1.json:2 `none/1.jpg`, 1.json:3 `none/2.jpg` and 2 more; unpack" in text
    assert "exist (5): 1.json:1" in text
    assert "no JSON object (1): 2.json:1;" in text
    assert "2.json:3 lanes[0] (1 values, 56 h_samples)" in text
    assert f"without a label (1): {empty}" in text
    assert f"cannot be read (1): {missing}: No such file or directory;" in text
    assert text.count("\n- ") == 5


def test_unchecked_images_need_not_exist(root):
    file = write_lines(root / "l.json", [label("none/20.jpg")])
    (frame,) = read_labels([file], root, check_images=False)
    assert frame.image == (root / "none/20.jpg").resolve()
    with pytest.raises(InputError, match="outside the root"):
        read_labels([write_lines(root / "m.json", [label("../x.jpg")])], root, check_images=False)


def test_no_label_files_are_an_error(root):
    with pytest.raises(
        InputError, match=r"no label files are given; TuSimple's are called label_data"
    ):
        read_labels([], root)


def test_arrays_are_of_float64(root):
    (frame,) = read_labels([write_lines(root / "l.json", [label()])], root)
    assert {a.dtype for a in (frame.rows, *frame.lanes)} == {np.dtype(np.float64)}
    assert np.array_equal(frame.rows, ROWS)
    assert np.array_equal(frame.lanes[0], straight(200))


def test_other_frames_or_lanes_give_other_facts(tmp_path):
    def facts(*labels):
        write_lines(tmp_path / "labels.json", labels)
        data = {"root": str(tmp_path), "train": ["labels.json"], "test": ["labels.json"]}
        recipe = validate(LaneRecipe, {**TINY, "data": data, "distillation": None})
        return LaneNetworkTask(recipe).data_facts()

    write_image(tmp_path / "clips/a/20.jpg", blotches(1))
    before = facts(label())
    assert facts(label()) == before
    assert before["train frames"].startswith("1 (")
    lanes = label()["lanes"]
    assert facts(label(lanes=[[x + (x > 0) for x in lanes[0]], *lanes[1:]])) != before
    write_image(tmp_path / "clips/a/20.jpg", blotches(2))
    assert facts(label()) != before
    for shade in (0, 255):  # two images of one size in bytes
        cv2.imwrite(str(tmp_path / "clips/a/20.bmp"), np.full((720, 1280, 3), shade, np.uint8))
        before, earlier = facts(label(raw_file="clips/a/20.bmp")), before
    assert {key for key in before if before[key] != earlier[key]} == {"train pixels", "test pixels"}


@pytest.mark.parametrize(("scale", "said"), [(0.5, 1), (1, 0)])
def test_labels_of_a_smaller_image_are_told(root, caplog, scale, said):
    rows = [scale * y for y in range(160, 711, 10)]
    lane = [scale * x for x in range(300, 300 + len(rows))]
    file = write_lines(root / "l.json", [label("clips/b/20.jpg", lanes=[lane], h_samples=rows)])
    read_labels([file], root)
    lines = [r.getMessage() for r in caplog.records if "of a smaller image" in r.getMessage()]
    assert len(lines) == said
    assert all("y = 355, " in line and "1280 wide" in line for line in lines)


@pytest.mark.parametrize(
    ("test", "told"), [("label_data_2.json", True), ("test_label.json", False)]
)
def test_frames_that_are_trained_on_and_measured_on_are_told(root, caplog, test, told):
    """``label_data_*.json`` for training matches the file of validation too."""
    write_lines(root / "label_data_1.json", [label("clips/a/20.jpg")])
    write_lines(root / test, [label("clips/b/20.jpg")])
    data = {"root": str(root), "train": ["label_data_*.json"], "test": [test]}
    recipe = validate(LaneRecipe, {**TINY, "data": {**data, "batch_size": 1}})
    LaneNetworkTask(recipe).data_facts()
    assert ("1 of the 1 images that are measured on are trained on too" in caplog.text) == told
