"""Bad label files are refused with file, line and content; odd ones that Ultralytics takes are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detection_set import DataSet

import detprune_yolo  # noqa: F401 (prepares the environment before ultralytics is imported)
from detprune.errors import InputError
from detprune_yolo.data.check import check_data

# isort: split
from ultralytics.data import YOLODataset
from ultralytics.data.utils import check_det_dataset


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "set")


def test_polygons_byte_order_marks_and_small_overshoot_are_allowed(data: DataSet) -> None:
    data.label("train/train0.txt", "0 0.1 0.1 0.9 0.1 0.5 0.9\n1 0 0 1 0 1 1 0 1\n")
    data.label("train/train1.txt", "\ufeff0 0.5 0.5 1.009 1.0\n\n1.0 -0.009 0.5 0.1 0.1\n")
    assert check_data(data.yaml).labelled["train"] == 3


def test_boxes_of_pose_labels_are_allowed(data: DataSet) -> None:
    for number in range(3):
        data.label(f"train/train{number}.txt", "0 0.5 0.5 0.2 0.2 0.4 0.4 2 -1 7 0\n")
        data.label(f"val/val{number}.txt", "0 0.5 0.5 0.2 0.2 0.4 0.4 2 -1 7 0\n")
    assert "coordinates outside the image (6)" in data.refused()
    assert not check_data(DataSet(data.root.parent / "boxes").yaml).pose
    data.keys["kpt_shape"] = [2, 3]
    checked = check_data(data.yaml)
    assert checked.labelled["train"] == 3
    assert checked.pose
    # and so does Ultralytics, in training of a detector
    keys = {**check_det_dataset(str(data.yaml), autodownload=False), "nc": len(checked.names)}
    read = YOLODataset(img_path=keys["train"], data=keys, task="detect", imgsz=64).labels
    assert [label["bboxes"].tolist() for label in read] == 3 * [
        [pytest.approx([0.5, 0.5, 0.2, 0.2])]
    ]
    assert all(label["keypoints"] is None and not label["segments"] for label in read)


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_label_file_for_any_image(data: DataSet, split: str) -> None:
    (data.root / "labels" / split).rename(data.root / "labels" / "elsewhere")
    message = data.refused()
    expected = f"{data.root}/labels/{split}/{split}0.txt"
    assert f"no labels found (1): {split}: expected {expected}" in message
    assert "the last folder `images` replaced by `labels`" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_only_empty_label_files(data: DataSet, split: str) -> None:
    for number in range(3):
        data.label(f"{split}/{split}{number}.txt", "\n")
    assert f"splits whose label files are all empty (1): {split}: " in data.refused()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.2", "malformed label lines (1)"),
        ("0 0.5 0.5 0.2 0.2 0.9", "malformed label lines (1)"),
        ("0 0.5 0.5 x 0.2", "malformed label lines (1)"),
        ("0,0.5,0.5,0.2,0.2", "malformed label lines (1)"),
        ("0.5 0.5 0.5 0.2 0.2", "malformed label lines (1)"),
        ("nan 0.5 0.5 0.2 0.2", "malformed label lines (1)"),
        ("0 0.1 0.1 0.9 0.1 0.5 0.9 0.3", "malformed label lines (1)"),
        ("2 0.5 0.5 0.2 0.2", "a class that `names` does not list (1)"),
        ("-1 0.5 0.5 0.2 0.2", "a class that `names` does not list (1)"),
        ("0 1.02 0.5 0.2 0.2", "coordinates outside the image (1)"),
        ("0 0.5 -0.02 0.2 0.2", "coordinates outside the image (1)"),
        ("0 320 240 64 64", "coordinates outside the image (1)"),
        ("0 0.5 0.5 nan 0.2", "malformed label lines (1)"),
        ("0 0.1 0.1 0.9 0.1 0.5 1.9", "coordinates outside the image (1)"),
        ("0 0.5 0.5 0 0.2", "a box of no area (1)"),
        ("0 0.5 0.5 0.2 -0.005", "a box of no area (1)"),
        ("0 0.1 0.1 0.5 0.1 0.9 0.1", "a box of no area (1)"),
    ],
)
def test_bad_label_lines(data: DataSet, text: str, message: str) -> None:
    data.label("train/train1.txt", f"{text}\n")
    refused = data.refused()
    assert f"{message}: {data.root}/labels/train/train1.txt:1;" in refused
    assert f"`{text}`" not in refused
    assert refused.count("\n- ") == 1


def test_boxes_and_polygons_mixed_in_a_file(data: DataSet) -> None:
    data.label("val/val0.txt", "0 0.1 0.1 0.9 0.1 0.5 0.9\n0 0.5 0.5 0.2 0.2\n")
    assert "malformed label lines (1): " in (message := data.refused())
    assert "val0.txt:2; a line is `class cx cy w h`, or" in message


def test_a_label_file_that_is_not_text(data: DataSet) -> None:
    (data.root / "labels/train/train0.txt").write_bytes(b"\xff\xfe\x00\x80")
    assert (
        "labels/train/train0.txt (not text in UTF-8, in which it is to be saved)" in data.refused()
    )


def dropped_by_ultralytics(label_file: Path, image: Path) -> bool:
    from ultralytics.data.utils import verify_image_label

    return bool(
        verify_image_label((str(image), str(label_file), "", False, 2, 0, 0, False))[0] is None
    )


@pytest.mark.parametrize(
    "text",
    [
        *("0 0.5 0.5 0.2 0.2", "1 1.01 0.5 0.2 0.2", "0 -0.01 0.5 0.2 0.2", "0 1.011 0.5 0.2 0.2"),
        *("0 -0.011 0.5 0.2 0.2", "2 0.5 0.5 0.2 0.2", "0 .5 .5 .2 .2 .9", "0 .1 .1 .9 .1 .5 .9"),
        *(
            "0 .1 .1 .9 .1 .5 .9\n0 .5 .5 .2 .2",
            "0.5 0.5 0.5 0.2 0.2",
            "0 0.5 0.5 0.2",
            "a b c d e",
        ),
    ],
)
def test_refused_is_what_ultralytics_drops(
    data: DataSet, text: str, drawn_pixels: Callable[[Path], Path]
) -> None:
    image = drawn_pixels(data.root / "images/train/train0.jpg")
    data.label("train/train0.txt", text)
    try:
        check_data(data.yaml)
        refused = False
    except InputError:
        refused = True
    assert refused == dropped_by_ultralytics(data.root / "labels/train/train0.txt", image)


@pytest.fixture
def drawn_pixels() -> Callable[[Path], Path]:
    from PIL import Image

    def save(path: Path) -> Path:
        Image.new("RGB", (32, 32)).save(path)
        return path

    return save
