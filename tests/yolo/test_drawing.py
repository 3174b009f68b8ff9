"""The drawn detection set: the same everywhere, consistent with itself, never half a set."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

import detprune_yolo  # noqa: F401 (prepares the environment before ultralytics is imported)
from detprune.errors import InputError
from detprune_yolo.data import drawing, shapes
from detprune_yolo.data.check import check_data
from detprune_yolo.data.command import draw_shapes
from detprune_yolo.data.drawing import DrawnSet, cached, draw

SPEC = DrawnSet(train=12, val=4, size=96, seed=3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(SPEC, tmp_path_factory.mktemp("drawn") / "set").parent


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.name != "shapes.yaml"  # holds the folder's own path
    }


def test_the_same_seed_draws_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    again = draw(SPEC, tmp_path / "again").parent
    assert files(again) == files(drawn)
    assert len(files(drawn)) == 2 * (12 + 4) + 2 + 1
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_another_seed_draws_other_images(drawn: Path, tmp_path: Path) -> None:
    other = files(draw(replace(SPEC, seed=4), tmp_path / "other").parent)
    for name, content in files(drawn).items():
        if name.endswith(".png"):
            assert other[name] != content


def test_the_splits_and_images_differ(drawn: Path) -> None:
    contents = [content for name, content in files(drawn).items() if name.endswith(".png")]
    assert len(set(contents)) == 16


def test_test_images_are_a_split_of_their_own(drawn: Path, tmp_path: Path) -> None:
    larger = draw(replace(SPEC, test=3), tmp_path / "tested")
    assert yaml.safe_load(larger.read_text())["test"] == "images/test"
    assert "test" not in yaml.safe_load((drawn / "shapes.yaml").read_text())
    whole, without = files(larger.parent), files(drawn)
    fresh = [name for name in whole if name.startswith("images/test/")]
    assert len(fresh) == 3
    assert not {whole[name] for name in fresh} & set(without.values())
    assert {n: c for n, c in without.items() if ".json" not in n}.items() <= whole.items()
    coco = json.loads((larger.parent / "annotations" / "instances_test.json").read_text())
    assert {f"{image['id']:012d}" for image in coco["images"]} == {Path(n).stem for n in fresh}


def test_a_larger_set_begins_with_the_smaller_one(drawn: Path, tmp_path: Path) -> None:
    larger = files(draw(replace(SPEC, train=14, val=5), tmp_path / "larger").parent)
    shared = {name: content for name, content in files(drawn).items() if ".json" not in name}
    assert shared.items() <= larger.items()


def test_a_data_yaml_that_was_edited_is_not_written_over(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "moved")
    file = draw(SPEC, tmp_path / "moved")
    assert yaml.safe_load(file.read_text())["path"] == str(tmp_path / "moved")
    edited = file.read_text().replace("names:", "channels: 3\nnames:")
    file.write_text(edited)
    with pytest.raises(InputError, match=r"shapes\.yaml was changed since it was drawn; give"):
        draw(SPEC, tmp_path / "moved")
    assert file.read_text() == edited
    file.write_text("- no mapping")
    with pytest.raises(InputError, match="was changed"):
        draw(SPEC, tmp_path / "moved")
    file.unlink()
    assert yaml.safe_load(draw(SPEC, tmp_path / "moved").read_text())["names"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_labels_agree_with_the_coco_annotations(drawn: Path, split: str) -> None:
    coco = json.loads((drawn / "annotations" / f"instances_{split}.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    described = yaml.safe_load((drawn / "shapes.yaml").read_text())["names"]
    assert names == {label + 1: name for label, name in described.items()}
    assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
    assert {image["file_name"] for image in coco["images"]} == {
        path.name for path in (drawn / "images" / split).iterdir()
    }
    for image in coco["images"]:
        assert image["id"] == int(Path(image["file_name"]).stem)
        picture = cv2.imread(str(drawn / "images" / split / image["file_name"]))
        assert picture.shape == (image["height"], image["width"], 3) == (96, 96, 3)
        label_file = drawn / "labels" / split / Path(image["file_name"]).with_suffix(".txt")
        rows = [line.split() for line in label_file.read_text().splitlines()]
        boxes = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        assert 1 <= len(rows) == len(boxes)
        for (label, *place), box in zip(rows, boxes, strict=True):
            assert all(len(value.split(".")[1]) == 6 for value in place)
            assert int(label) + 1 == box["category_id"]
            x, y, w, h = box["bbox"]
            assert min(x, y) >= 0
            assert min(w, h) >= 2
            assert x + w <= 96
            assert y + h <= 96
            assert box["area"] == w * h
            expected = [(x + w / 2) / 96, (y + h / 2) / 96, w / 96, h / 96]
            assert [float(value) for value in place] == pytest.approx(expected, abs=1e-6)


def test_coco_reads_the_annotations(drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(drawn / "annotations" / "instances_val.json"))
    assert len(coco.getImgIds()) == 4
    assert len(coco.getCatIds()) == len(shapes.CLASSES)


def test_boxes_are_tight_around_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object's own pixels, recorded while it is drawn, give its box and its visible share."""
    owners: list[shapes.Image] = []
    totals: list[list[int]] = []
    place = shapes._place

    def recording(rng, label, image, owner, areas, smallest):  # type: ignore[no-untyped-def]
        before = image.copy()
        done = place(rng, label, image, owner, areas, smallest)
        if done:
            # No pixel changes outside the new object, but for its smooth edge.
            edge = cv2.dilate((owner == len(areas) - 1).astype(np.uint8), np.ones((5, 5), np.uint8))
            assert not (before != image)[edge == 0].any()
        else:
            assert np.array_equal(before, image)
        owners.append(owner)
        totals.append(areas)
        return done

    monkeypatch.setattr(shapes, "_place", recording)
    covered = 0
    for index in range(30):
        owners.clear()
        totals.clear()
        _, boxes = shapes.draw_image(np.random.default_rng(index), 96)
        owner, areas = owners[-1], totals[-1]
        assert len(boxes) == len(areas) - 1 == owner.max()
        for number, box in enumerate(boxes, start=1):
            ys, xs = np.nonzero(owner == number)
            assert (xs.min(), ys.min()) == (box.x, box.y)
            assert (xs.max() + 1, ys.max() + 1) == (box.x + box.w, box.y + box.h)
            assert len(xs) >= shapes.MIN_VISIBLE * areas[number]
            covered += len(xs) < 0.9 * areas[number]
    assert covered >= 5


def test_all_classes_and_sizes_occur() -> None:
    boxes = [
        box
        for index in range(80)
        for box in shapes.draw_image(np.random.default_rng([9, index]), 160)[1]
    ]
    counts = np.bincount([box.label for box in boxes], minlength=len(shapes.CLASSES))
    assert counts.min() > 0.5 * counts.mean()
    sides = [max(box.w, box.h) / 160 for box in boxes]
    assert min(sides) < 0.13
    assert 0.38 < max(sides) < 0.47


def test_ultralytics_loads_every_label(
    drawn: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset
    from ultralytics.utils import LOGGER

    description = draw(SPEC, tmp_path / "set")  # its own, since the dataset leaves a cache file
    data = check_det_dataset(str(description), autodownload=False)
    assert data["names"] == dict(enumerate(shapes.CLASSES))
    monkeypatch.setattr(LOGGER, "propagate", True)
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        for split, count in (("train", 12), ("val", 4)):
            dataset = YOLODataset(
                data[split], data=data, task="detect", imgsz=96, augment=False, hyp=get_cfg()
            )
            assert len(dataset) == count
            rows = (tmp_path / "set" / "labels" / split).glob("*.txt")
            lines = sum(len(path.read_text().splitlines()) for path in rows)
            assert sum(len(label["cls"]) for label in dataset.labels) == lines
            assert dataset[0]["img"].shape == (3, 96, 96)
    text = caplog.text.lower()
    assert "corrupt image" not in text
    assert "duplicate" not in text
    assert draw(SPEC, tmp_path / "set") == description  # reused beside the cache file


def test_our_own_check_accepts_it(drawn: Path) -> None:
    data = check_data(drawn / "shapes.yaml", nc=6)
    assert {split: len(images) for split, images in data.images.items()} == {"train": 12, "val": 4}
    assert data.labelled == {"train": 12, "val": 4}


def test_a_complete_set_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = draw(SPEC, tmp_path / "set")

    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(drawing, "draw_image", never)
    assert draw(SPEC, tmp_path / "set") == description


def test_a_moved_set_describes_its_new_place(tmp_path: Path) -> None:
    draw(SPEC, tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    description = draw(SPEC, tmp_path / "new")
    assert yaml.safe_load(description.read_text())["path"] == str(tmp_path / "new")


def test_a_kill_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = drawing.draw_image
    drawn_images = []

    def killed(
        rng: np.random.Generator, size: int, *args: Any
    ) -> tuple[shapes.Image, list[shapes.Box]]:
        if len(drawn_images) == 5:
            raise KeyboardInterrupt
        drawn_images.append(size)
        assert not (tmp_path / "set").exists()
        return real(rng, size)

    monkeypatch.setattr(drawing, "draw_image", killed)
    with pytest.raises(KeyboardInterrupt):
        draw(SPEC, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(drawing, "draw_image", real)
    assert draw(SPEC, tmp_path / "set").is_file()


def test_a_half_drawn_folder_is_not_taken_for_a_set(drawn: Path, tmp_path: Path) -> None:
    half = draw(SPEC, tmp_path / "set").parent
    (half / "set.json").unlink()
    with pytest.raises(InputError, match=r"set holds something that is not a drawn data set"):
        draw(SPEC, half)


def test_a_set_with_files_missing_is_not_reused(tmp_path: Path) -> None:
    folder = draw(SPEC, tmp_path / "set").parent
    next((folder / "labels" / "val").iterdir()).unlink()
    with pytest.raises(InputError, match=r"labels/val holds 3 \*\.txt files of 4; remove it"):
        draw(SPEC, folder)


def test_other_content_is_left_alone(tmp_path: Path) -> None:
    folder = draw(SPEC, tmp_path / "set").parent
    with pytest.raises(InputError, match=r"holds another drawn data set .*'seed': 3.*'seed': 5"):
        draw(replace(SPEC, seed=5), folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("mine")
    with pytest.raises(InputError, match="photos holds something"):
        draw(SPEC, tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file holds something"):
        draw(SPEC, tmp_path / "file")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    assert draw(SPEC, tmp_path / "set").is_file()


def test_the_cache_folder_names_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = DrawnSet(train=1, val=1, size=64)
    first, second = cached(small), cached(replace(small, seed=1))
    assert first != second
    assert first.parent.parent == second.parent.parent == tmp_path / "detprune" / "drawn"
    assert cached(small) == first


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": 0}, "train of a drawn data set is 0; choose a whole number from 1"),
        ({"val": -1}, "val of a drawn data set is -1"),
        ({"test": -1}, "test of a drawn data set is -1; choose a whole number from 0"),
        ({"size": 32}, "size of a drawn data set is 32; choose a whole number from 64 to 1024"),
        ({"size": 96.5}, "size of a drawn data set is 96.5"),
        ({"classes": 7}, "classes of a drawn data set is 7; choose a whole number from 1 to 6"),
        ({"objects": 0}, "objects of a drawn data set is 0; choose a whole number from 1 to 6"),
        ({"smallest": 0.5}, "smallest of a drawn data set is 0.5; choose a number from 0.12 to"),
        ({"smallest": "x"}, "smallest of a drawn data set is 'x'"),
        ({"seed": -1}, "seed of a drawn data set is -1; choose a whole number from 0"),
    ],
)
def test_values_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DrawnSet(**values)


def test_an_easier_set(tmp_path: Path) -> None:
    spec = DrawnSet(train=20, val=5, size=96, classes=2, objects=3, smallest=0.3)
    file = draw(spec, tmp_path / "set")
    assert yaml.safe_load(file.read_text())["names"] == {0: "disk", 1: "square"}
    labels = [f.read_text().splitlines() for f in (tmp_path / "set/labels/train").iterdir()]
    assert {line.split()[0] for lines in labels for line in lines} == {"0", "1"}
    assert {len(lines) for lines in labels} == {1, 2, 3}
    described = json.loads((tmp_path / "set" / "set.json").read_text())
    assert described["classes"] == 2
    assert "classes" not in json.loads(
        (draw(SPEC, tmp_path / "usual").parent / "set.json").read_text()
    )  # as earlier versions wrote it


def test_the_command_prints_the_yaml(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(draw_shapes)
    arguments = [str(tmp_path / "set"), "--train", "2", "--val", "1", "--size", "64", "--seed", "7"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == tmp_path / "set" / "shapes.yaml"
    stored = json.loads((tmp_path / "set" / "set.json").read_text())
    assert stored == {"format": 2, "train": 2, "val": 1, "size": 64, "seed": 7, "test": 0}
