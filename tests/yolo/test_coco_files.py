"""``detprune evaluate coco`` on files: plain COCO results, and what Ultralytics writes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from coco_cases import NAMES, changed, perfect, truth, ultralytics
from typer.testing import CliRunner

from detprune.errors import InputError
from detprune_yolo.measure.coco import evaluate_file
from detprune_yolo.measure.command import evaluate_coco


def files(folder: Path, predictions: Any, annotations: Any = None) -> tuple[Path, Path]:
    found, given = folder / "found.json", folder / "given.json"
    found.write_text(json.dumps(predictions))
    given.write_text(json.dumps(truth() if annotations is None else annotations))
    return found, given


def with_coco_categories() -> list[dict[str, Any]]:
    return [{**p, "category_id": {1: 20, 2: 30}[p["category_id"]]} for p in ultralytics()]


def test_plain_results(tmp_path: Path) -> None:
    assert evaluate_file(*files(tmp_path, perfect())).map50_95 == 1.0
    assert evaluate_file(*files(tmp_path, [])).map50_95 == 0.0


def test_images_are_found_by_file_name(tmp_path: Path) -> None:
    assert evaluate_file(*files(tmp_path, with_coco_categories())).map50_95 == 1.0


def test_a_numeric_name_that_is_the_id_of_another_image(tmp_path: Path) -> None:
    """Ultralytics calls 5.jpg and 9.jpg by 5 and 9; here these are the ids of each other."""
    annotations = changed(truth(), "images", 0, "file_name", to="9.jpg")
    annotations["images"][1]["file_name"] = "5.jpg"
    stems = {5: "9.jpg", "b": "5.jpg"}
    found = [
        {**p, "file_name": stems[p["image_id"]], "image_id": int(stems[p["image_id"]][0])}
        for p in with_coco_categories()
    ]
    assert evaluate_file(*files(tmp_path, found, annotations)).map50_95 == 1.0


def test_known_ids_need_no_file_names_in_the_annotations(tmp_path: Path) -> None:
    annotations = truth()
    for image in annotations["images"]:
        del image["file_name"]
    found = [{**p, "file_name": "x.jpg"} for p in perfect()]
    assert evaluate_file(*files(tmp_path, found, annotations)).map50_95 == 1.0


def test_classes_by_name(tmp_path: Path) -> None:
    found, given = files(tmp_path, ultralytics())
    with pytest.raises(InputError, match=r"found.json against .*category_id 1 is no .*--names"):
        evaluate_file(found, given)
    assert evaluate_file(found, given, NAMES).map50_95 == 1.0


def test_unusable_files(tmp_path: Path) -> None:
    found, given = files(tmp_path, perfect())
    missing, broken = tmp_path / "missing.json", tmp_path / "broken.json"
    with pytest.raises(InputError, match=r"cannot read .*missing.json: No such file"):
        evaluate_file(missing, given)
    with pytest.raises(InputError, match=r"cannot read .*missing.json: No such file"):
        evaluate_file(found, missing)
    with pytest.raises(InputError, match="it is a folder, not a file; give a COCO instances file"):
        evaluate_file(tmp_path, given)
    os.mkfifo(tmp_path / "pipe")
    for one, other in ((tmp_path / "pipe", given), (found, tmp_path / "pipe")):
        with pytest.raises(InputError, match="pipe: it is a named pipe, not a file"):
            evaluate_file(one, other)
    for content in (b"[{", b"\xff\xfe\x00", b"", b"[" * 100_000):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken.json(, line 1, column 1: | is not JSON)"):
            evaluate_file(broken, given)
    with pytest.raises(InputError, match="the annotations are no object but a list"):
        evaluate_file(given, found)
    with pytest.raises(InputError, match="the predictions are no list but dict"):
        evaluate_file(given, given)
    with pytest.raises(
        InputError, match="image_id 'z' is a text, but COCO's ids are whole numbers"
    ):
        evaluate_file(*files(tmp_path, [{**perfect()[0], "image_id": "z"}]))
    with pytest.raises(InputError, match=r"prediction 0: file_name 'z.jpg' is no image"):
        evaluate_file(*files(tmp_path, [{**perfect()[0], "image_id": "z", "file_name": "z.jpg"}]))


@pytest.mark.parametrize("content", [["secret"], [{"secret": 1}], {"secret": {"secret": 1}}])
def test_a_link_to_another_file_is_not_quoted(tmp_path: Path, content: Any) -> None:
    found, given = files(tmp_path, perfect())
    other, link = tmp_path / "other.json", tmp_path / "link.json"
    other.write_text(json.dumps(content), encoding="utf-8")
    link.symlink_to(other)
    for pair in ((link, given), (found, link)):
        with pytest.raises(InputError, match=r"link\.json holds neither annotations") as error:
            evaluate_file(*pair)
        assert "secret" not in str(error.value)


def command(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command()(evaluate_coco)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_prints_one_json_object(tmp_path: Path) -> None:
    found, given = files(tmp_path, perfect()[:2])
    done = command("--predictions", found, "--annotations", given)
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "mAP@0.5": 0.5,
        "mAP@[.5:.95]": 0.5,
        "mAP@[.5:.95] small": 0.0,
        "mAP@[.5:.95] medium": None,
        "mAP@[.5:.95] large": 1.0,
        "images": 2,
        "annotations": 3,
        "predictions": 2,
    }


@pytest.mark.parametrize("names", ["[car, dog]", "{0: car, 1: dog}", "{1: dog, 0: car}"])
def test_the_command_takes_names(tmp_path: Path, names: str) -> None:
    found, given = files(tmp_path, ultralytics())
    data = tmp_path / "data.yaml"
    data.write_text(f"names: {names}")
    done = command("--predictions", found, "--annotations", given, "--names", data)
    assert json.loads(done.stdout)["mAP@[.5:.95]"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nc: 2", "data.yaml has no names; give the class names"),
        ("- car", "data.yaml has no names"),
        ("names: {1: car, 2: dog}", r"names has the keys \[1, 2\]; they are 0, 1, …"),
        ("names: [", "data.yaml, line 1, column 9 is not valid YAML"),
        (None, "cannot read .*data.yaml: No such file"),
    ],
)
def test_bad_names(tmp_path: Path, content: str | None, message: str) -> None:
    found, given = files(tmp_path, ultralytics())
    data = tmp_path / "data.yaml"
    if content is not None:
        data.write_text(content)
    done = command("--predictions", found, "--annotations", given, "--names", data)
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=message):
        raise done.exception


@pytest.mark.parametrize("odd", [["a"], {}, None, "a.jpg", 1.5])
def test_an_image_whose_id_is_no_number(tmp_path: Path, odd: object) -> None:
    annotations = changed(truth(), "images", 1, "id", to=odd)
    with pytest.raises(InputError, match=r"given\.json: images entry 1 .*, which is no whole"):
        evaluate_file(*files(tmp_path, perfect(), annotations))
