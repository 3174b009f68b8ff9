"""Every bad data set is refused before training, with what is wrong and what to do."""

import copy
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from detection_recipe import TINY
from detection_set import GOOD, DataSet
from PIL import Image

import detprune_yolo  # noqa: F401 (prepares the environment before ultralytics is imported)
from detprune.errors import InputError
from detprune.run.recipe import validate
from detprune_yolo.data.check import check_data
from detprune_yolo.network_task import DetectionNetworkTask
from detprune_yolo.recipe import DetectionRecipe


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "set")


def test_a_good_set(data: DataSet) -> None:
    data.label("train/train1.txt", "")
    (data.root / "labels/train/train2.txt").unlink()
    before = sorted(data.root.rglob("*"))
    file = data.yaml
    found = check_data(file, nc=2)
    assert found.yaml == file
    assert found.names == {0: "cat", 1: "dog"}
    assert found.images == {
        split: [data.root / f"images/{split}/{split}{number}.jpg" for number in range(3)]
        for split in ("train", "val")
    }
    assert found.labelled == {"train": 1, "val": 3}
    assert sorted(data.root.rglob("*")) == sorted([*before, file])


def test_images_are_those_that_ultralytics_finds(data: DataSet) -> None:
    from ultralytics.data.base import BaseDataset

    data.image("images/train/deep/er/x.PNG")
    data.image("images/train/notes.txt")
    data.image("images/train/.hidden.jpg")
    data.image("images/train/.folder/y.jpg")
    data.image("images/more [1]/z.jpeg")
    (data.root / "list.txt").write_text(f"./images/val/val1.jpg\n{data.root}/images/val/val0.jpg\n")
    data.keys["train"] = ["images/train", "images/more [1]", "list.txt"]
    places = [str(data.root / place) for place in data.keys["train"]]
    expected = BaseDataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), places)
    assert [str(path) for path in check_data(data.yaml).images["train"]] == expected
    assert len(expected) == 3 + 2 + 2


def test_a_relative_path_is_taken_from_the_working_directory(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.root.parent)
    data.keys["path"] = "set"
    assert check_data(data.yaml).images["train"][0] == data.root / "images/train/train0.jpg"
    del data.keys["path"]
    assert check_data(data.yaml).images["val"][0] == data.root / "images/val/val0.jpg"


def test_a_test_split_is_optional(data: DataSet) -> None:
    data.keys["test"] = "images/test"
    assert "test" not in check_data(data.yaml).images
    data.image("images/test/a.jpg")
    found = check_data(data.yaml)
    assert len(found.images["test"]) == 1
    assert found.labelled["test"] == 0
    data.label("test/a.txt", "5 0.5 0.5 0.1 0.1")
    assert "labels/test/a.txt:1;" in data.refused()


def test_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data yaml '.*coco8\.yaml'; give the path of a file"):
        check_data(tmp_path / "coco8.yaml")


def test_another_ending(data: DataSet) -> None:
    with pytest.raises(InputError, match=r"data\.txt' must be called \*\.yaml or \*\.yml"):
        check_data(data.yaml.rename(data.root / "data.txt"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", r"data\.yaml, line 1, column 9 is not valid YAML"),
        ("- a\n- b\n", r"data\.yaml is not a YAML mapping"),
        ("just text", r"data\.yaml is not a YAML mapping"),
    ],
)
def test_not_a_yaml_mapping(data: DataSet, text: str, message: str) -> None:
    file = data.yaml
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        check_data(file)


@pytest.mark.parametrize("key", ["train", "val", "names"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_key_is_missing(data: DataSet, key: str, empty: bool) -> None:
    data.keys[key] = None
    if not empty:
        del data.keys[key]
    message = data.refused()
    assert f"keys missing or empty (1): `{key}`; a data yaml has train, val and names" in message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"nc": 3}, "`nc` is 3, `names` lists 2 classes; remove `nc` or correct it"),
        ({"names": "cat"}, "`names` is no list (1): 'cat'; list the class names"),
        ({"names": {1: "cat", 2: "dog"}}, "not numbered 0, 1, 2, … in full (1): 1, 2"),
        ({"names": ["cat", "cat"]}, "class names not unique (1): 'cat'; give every class"),
        ({"val": 3}, "that are no text (1): `val` has 3; write a path"),
        ({"train": ["a", 2020, 2021]}, "`train` has 2020, 2021; write a path"),
        ({"path": 2020}, "`path` has 2020"),
        ({"minival": [2020]}, "`minival` has 2020"),
        (
            {"kpt_shape": None},
            "`kpt_shape` is None; write [number of points, 2 or 3], or remove it",
        ),
        ({"path": ["a"]}, "`path` has ['a']; write a path"),
        ({"test": True}, "`test` has True"),
        ({"path": 3}, "`path` has 3; write a path"),
    ],
)
def test_keys_that_contradict(data: DataSet, keys: dict[str, Any], message: str) -> None:
    data.keys.update(keys)
    assert message in data.refused()


def test_a_model_with_other_classes(data: DataSet) -> None:
    message = data.refused(nc=80)
    assert (
        "does not fit the data (1): it has 80 classes, `names` lists 2; use a checkpoint" in message
    )
    check_data(data.yaml, nc=2)


def test_a_missing_val_folder_is_not_downloaded(data: DataSet) -> None:
    data.keys["val"] = "images/none"
    marker = data.root / "ran"
    data.keys["download"] = f"open({str(marker)!r}, 'w').close()"
    message = data.refused()
    assert f"missing path '{data.root}/images/none'" in message
    assert "nothing is downloaded" in message
    assert not marker.exists()


def test_a_missing_train_folder(data: DataSet) -> None:
    data.keys["train"] = ["images/train", "images/none"]
    message = data.refused()
    assert f"that do not exist (1): train: {data.root}/images/none; correct `path`" in message


def test_a_folder_without_images(data: DataSet) -> None:
    data.keys["train"] = "labels/train"
    message = data.refused()
    assert f"splits without images (1): train: {data.root}/labels/train; images end in" in message


def test_an_image_in_place_of_a_list(data: DataSet) -> None:
    (data.root / "one.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    data.keys["train"] = "one.jpg"
    message = data.refused()
    assert f"neither a folder nor a list of images (1): train: {data.root}/one.jpg; name" in message


def test_listed_images_that_do_not_exist(data: DataSet) -> None:
    lines = ["./images/train/train0.jpg", *(f"./images/train/no{n}.jpg" for n in range(5))]
    (data.root / "list.txt").write_text("\n".join(lines))
    data.keys["train"] = "list.txt"
    message = data.refused()
    assert f"listed images that do not exist (5): {data.root}/images/train/no0.jpg" in message
    assert "and 2 more; correct the list (with / between folders, not a backslash)" in message
    assert "no3" not in message


@pytest.mark.parametrize("other", ["deep/val1.jpg", "val1.png"])
def test_evaluated_images_of_one_name(data: DataSet, other: str) -> None:
    data.image(f"images/val/{other}")
    assert "tell apart (1): val: val1 (2 images); give every image" in data.refused()


def test_evaluated_images_of_one_number(data: DataSet) -> None:
    data.image("images/val/7.jpg")
    data.image("images/val/0007.jpg")
    assert "tell apart (1): val: 7 (2 images)" in data.refused()


def test_training_images_may_share_a_name(data: DataSet) -> None:
    data.image("images/train/deep/train1.jpg")
    assert len(check_data(data.yaml).images["train"]) == 4


def test_everything_is_named_at_once(data: DataSet) -> None:
    data.label("train/train0.txt", "9 0.5 0.5 0.2 0.2\n" * 4)
    data.label("val/val0.txt", "0 5 5 2 2\n0 0.5 0.5\n")
    data.image("images/val/val1.png")
    message = data.refused()
    assert message.startswith(f"{data.root}/data.yaml cannot be used as it is:\n- ")
    assert message.count("\n- ") == 4
    assert "does not list (4): " in message
    assert "train0.txt:3 and 1 more; " in message


def test_a_large_set_takes_seconds(data: DataSet) -> None:
    os.makedirs(data.root / "images/many")
    os.makedirs(data.root / "labels/many")
    for number in range(2000):
        data.image(f"images/many/{number}.jpg")
        (data.root / f"labels/many/{number}.txt").write_text(GOOD * 4)
    data.keys["train"] = "images/many"
    start = time.process_time()
    assert check_data(data.yaml).labelled["train"] == 2000
    assert time.process_time() - start < 5


@pytest.mark.parametrize(("fraction", "said"), [(1.0, "3 training"), (0.4, "1 of 3 training")])
def test_the_images_that_are_trained_on_are_counted(
    data: DataSet, fraction: float, said: str
) -> None:
    recipe = copy.deepcopy(TINY) | {"data": {"yaml": str(data.yaml)}}
    recipe["train"]["fraction"] = fraction
    task = DetectionNetworkTask(validate(DetectionRecipe, recipe))
    assert task.data_name == f"data, {said} images"


@pytest.mark.parametrize(
    ("key", "split", "told"),
    [("val", "val", False), ("train", "val", True), ("train", "train", False)],
)
def test_images_that_are_trained_on_and_measured_on_are_told(
    data: DataSet, caplog: pytest.LogCaptureFixture, key: str, split: str, told: bool
) -> None:
    data.keys["val"] = f"images/{key}"
    recipe = copy.deepcopy(TINY) | {"data": {"yaml": str(data.yaml), "split": split}}
    DetectionNetworkTask(validate(DetectionRecipe, recipe)).data_facts()
    assert ("3 of the 3 images that are measured on are trained on too" in caplog.text) == told


def test_a_data_yaml_that_is_not_here_says_from_where_paths_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"no data yaml .*relative path counts from the working"):
        check_data(Path("shapes/data.yaml"))


def test_other_images_or_labels_give_other_facts(tmp_path: Path) -> None:
    data, annotations = DataSet(tmp_path / "set"), tmp_path / "val.json"
    annotations.write_text('{"category_id": 1}', encoding="utf-8")

    def facts() -> Mapping[str, str]:
        named = {"yaml": str(data.yaml), "annotations": str(annotations)}
        recipe = copy.deepcopy(TINY) | {"data": named}
        return DetectionNetworkTask(validate(DetectionRecipe, recipe)).data_facts()

    def changed() -> set[str]:
        nonlocal before
        earlier, before = before, facts()
        assert before.keys() == earlier.keys()
        return {key for key in before if before[key] != earlier[key]}

    before = facts()
    assert before["classes"] == "cat, dog"
    assert changed() == set()
    data.label("train/train1.txt", "0 0.5 0.5 0.25 0.2\n")
    assert changed() == {"train images", "train labels"}
    data.label("val/val1.txt", "1" + GOOD[1:])  # as many bytes
    assert changed() == {"val labels"}
    annotations.write_text('{"category_id": 2}', encoding="utf-8")
    assert changed() == {"annotations"}
    for shade in (0, 255):
        Image.new("RGB", (32, 32), (shade,) * 3).save(data.root / "images/train/train9.bmp")
        difference = changed()
    assert difference == {"train pixels"}
    data.image("images/val/val9.jpg")
    assert "val images" in changed()
