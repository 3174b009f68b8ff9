"""Models, data sets and annotations that do not fit each other are refused before inference."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from colours import NAMES, ColourFinder, coco_file, draw
from torch import nn

from detprune.errors import InputError
from detprune_yolo.measure import validation
from detprune_yolo.measure.validation import validate


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    return draw(tmp_path / "set", [f"{name}.png" for name in ("007", "b", "c", "d", "e")])


def test_classes_must_fit(data_yaml: Path) -> None:
    with pytest.raises(InputError, match=r"the model has 2 classes .* has 3 "):
        validate(ColourFinder(names={0: "red", 1: "green"}), data_yaml, imgsz=64)
    with pytest.raises(InputError, match="in another order, 'green', 'red', 'blue' against 'red'"):
        validate(ColourFinder(names={0: "green", 1: "red", 2: "blue"}), data_yaml, imgsz=64)
    with pytest.raises(InputError, match="Linear has no class names"):
        validate(nn.Linear(1, 1), data_yaml, imgsz=64)


def test_names_that_differ_otherwise_are_taken_by_their_index(data_yaml: Path) -> None:
    """A detector built from a YAML has the names 0, 1, 2 until a trainer gives it others."""
    names = {0: "0", 1: "1", 2: "2"}
    assert validate(ColourFinder(names=names), data_yaml, imgsz=64).coco.map50 == 1.0


def test_bad_data(data_yaml: Path, tmp_path: Path) -> None:
    model = ColourFinder()
    with pytest.raises(InputError, match=r"none\.yaml is no YAML file"):
        validate(model, tmp_path / "none.yaml", imgsz=64)
    with pytest.raises(InputError, match=r"cannot be used for split 'test'.*images not found"):
        validate(model, data_yaml, imgsz=64, split="test")
    broken = data_yaml.with_name("broken.yaml")
    broken.write_text("train: images\nval: images\n")
    with pytest.raises(InputError, match="'names' or 'nc' are required"):
        validate(model, broken, imgsz=64)
    (data_yaml.parent / "nothing").mkdir()
    broken.write_text(yaml.safe_dump({"train": "images", "val": "nothing", "names": NAMES}))
    with pytest.raises(InputError, match=r"broken\.yaml: .*Error loading data from"):
        validate(model, broken, imgsz=64)
    for name in ("imgsz", "batch", "max_det"):
        with pytest.raises(InputError, match=f"{name} is 0; it is at least 1"):
            validate(model, data_yaml, **{"imgsz": 64, name: 0})  # type: ignore[arg-type]


def test_bad_devices(data_yaml: Path) -> None:
    with pytest.raises(InputError, match="device is 'gpu'; give cpu or the index of one GPU"):
        validate(ColourFinder(), data_yaml, imgsz=64, device="gpu")
    with pytest.raises(InputError, match="device is 99, but PyTorch sees"):
        validate(ColourFinder(), data_yaml, imgsz=64, device=99)


def test_no_objects_at_all(data_yaml: Path) -> None:
    for file in (data_yaml.parent / "labels").iterdir():
        file.write_text("")
    with pytest.raises(InputError, match="no object in the 5 images"):
        validate(ColourFinder(), data_yaml, imgsz=64)


def test_same_base_name_in_two_folders(tmp_path: Path) -> None:
    data_yaml = draw(tmp_path, ["one/a.png", "two/a.png"])
    with pytest.raises(InputError, match=r"same base name, .*one/a\.png' and .*two/a\.png'"):
        validate(ColourFinder(), data_yaml, imgsz=64)


def test_bad_annotations(data_yaml: Path, tmp_path: Path) -> None:
    def check(message: str, **changes: Any) -> None:
        file = coco_file(tmp_path / "a.json", data_yaml, **changes)
        with pytest.raises(InputError, match=message):
            validate(ColourFinder(), data_yaml, imgsz=64, annotations=file)

    truth = json.loads(coco_file(tmp_path / "a.json", data_yaml).read_text())
    kept = [image for image in truth["images"] if image["file_name"] not in ("b.png", "e.png")]
    known = {image["id"] for image in kept}
    check(
        r"2 of 5 images are not in .*a\.json: .*(b|e)\.png.*(b|e)\.png",
        images=kept,
        annotations=[a for a in truth["annotations"] if a["image_id"] in known],
    )
    check(
        r"b\.png has 64 × 40 pixels, but in .*a\.json 128 × 80",
        images=[
            {**i, "width": 128, "height": 80} if i["file_name"] == "b.png" else i
            for i in truth["images"]
        ],
    )
    renamed = [{**c, "name": c["name"].replace("blue", "cyan")} for c in truth["categories"]]
    check(r"a\.json: the classes 'blue' are not in the annotations", categories=renamed)
    with pytest.raises(InputError, match=r"cannot read .*none\.json"):
        validate(ColourFinder(), data_yaml, imgsz=64, annotations=tmp_path / "none.json")


def test_images_left_out_are_told(data_yaml: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data_yaml.parent / "labels" / "b.txt").write_text("0 5 5 5 5")
    with caplog.at_level(logging.WARNING, "detprune"):
        scores = validate(ColourFinder(), data_yaml, imgsz=64)
    assert scores.images == 4
    assert "1 images are left out of the validation" in caplog.text
    assert "b.png" in caplog.text


def test_distributed_processes_are_refused(
    data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "RANK", 0)
    with pytest.raises(InputError, match="this is rank 0 of several"):
        validate(ColourFinder(), data_yaml, imgsz=64)
