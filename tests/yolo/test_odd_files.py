"""Pipes, folders, damaged images and odd names in a detection set: named before training, or taken."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from detection_set import GOOD, DataSet

import detprune_yolo  # noqa: F401 (prepares the environment before ultralytics is imported)
from damaged import forbid_listing
from detprune.errors import InputError
from detprune_yolo.data.check import check_data
from detprune_yolo.data.images import DetectionImages, refuse_left_out
from detprune_yolo.data.places import check_place
from detprune_yolo.kinds import DETECT


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "set")


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_images_that_are_none(data: DataSet, content: bytes) -> None:
    data.image("images/train/train1.jpg").write_bytes(content)
    assert "would leave them out (1): " in (message := data.refused())
    assert "train1.jpg; replace them" in message


def test_odd_files_among_images_and_labels(data: DataSet) -> None:
    os.mkfifo(data.root / "images/train/pipe.jpg")
    (data.root / "images/train/folder.png").mkdir()
    label = data.root / "labels/train/train0.txt"
    label.unlink()
    os.mkfifo(label)
    (data.root / "labels/val/val0.txt").unlink()
    (data.root / "labels/val/val0.txt").mkdir()
    assert "folders, pipes or devices (4): " in data.refused()


@pytest.mark.parametrize("file", ["images/train/train0.jpg", "labels/train/train0.txt"])
def test_a_link_to_a_file_that_was_not_fetched(data: DataSet, file: str) -> None:
    (data.root / file).unlink()
    (data.root / file).symlink_to(data.root / ".git/annex/objects/nowhere")
    message = data.refused()
    assert "links to files that are not there (1): " in message
    assert f"{file}; fetch the files (git annex get, dvc pull)" in message


def test_a_label_that_was_not_fetched_is_refused_by_the_trainers_too(data: DataSet) -> None:
    label = data.root / "labels/train/train0.txt"
    label.unlink()
    label.symlink_to("nowhere")
    with pytest.raises(InputError, match=r"links to files that are not there \(1\): .*train0.txt"):
        DetectionImages(
            img_path=str(data.root / "images/train"), data=dict(data.keys), task="detect"
        )


@pytest.mark.parametrize("name", ["train0.TXT", "Train0.txt"])
def test_a_label_whose_name_differs_in_capitals_is_refused(data: DataSet, name: str) -> None:
    """As Windows' tools write them; its image was taken for one without objects."""
    label = data.root / "labels/train/train0.txt"
    label.rename(label.with_name(name))
    message = data.refused()
    assert "in capitals alone, so that they are not read (1): " in message
    assert f"{name}; rename them" in message
    with pytest.raises(InputError, match=rf"in capitals alone.*{name}; rename them"):
        DetectionImages(
            img_path=str(data.root / "images/train"), data=dict(data.keys), task="detect"
        )


def test_labels_of_images_that_differ_in_capitals(data: DataSet) -> None:
    data.image("images/train/TRAIN0.jpg")  # without objects, and without a label file
    assert len(check_data(data.yaml).images["train"]) == 4


@pytest.mark.parametrize(
    "names",
    ["[no, yes]", "{0: on, 1: cat}", "[null, cat]", "[~, ~]", "[2026-11-28, cat]", "[[a], b]"],
)
def test_class_names_that_are_no_text_in_yaml(data: DataSet, names: str) -> None:
    """Country codes and answers; the classes were called False and True."""
    file = data.yaml
    keys = {key: value for key, value in data.keys.items() if key != "names"}
    file.write_text(f"{yaml.safe_dump(keys)}names: {names}\n")
    with pytest.raises(
        InputError, match=r"class names that are no text in YAML.*write them in quo"
    ):
        check_data(file)
    with pytest.raises(InputError, match="class names that are no text in YAML"):
        check_place(str(file), "val", DETECT)  # what a trainer from Python asks
    file.write_text(f"{yaml.safe_dump(keys)}names: ['no', 2]\n")
    assert {key: str(name) for key, name in check_data(file).names.items()} == {0: "no", 1: "2"}
    check_place(str(file), "val", DETECT)


@pytest.mark.parametrize("kind", ["pipe", "image"])
def test_a_split_that_is_no_folder(data: DataSet, kind: str) -> None:
    os.mkfifo(data.root / "pipe.txt")
    data.keys["train"] = "pipe.txt" if kind == "pipe" else "images/train/train0.jpg"
    assert "neither a folder nor a list of images (1): train:" in data.refused()


def test_a_label_of_another_place_is_not_quoted(data: DataSet) -> None:
    (data.root.parent / "secret").write_text("password 12345\n")
    label = data.root / "labels/train/train0.txt"
    label.unlink()
    label.symlink_to(data.root.parent / "secret")
    assert "train0.txt:1;" in (message := data.refused())
    assert "password" not in message


@pytest.mark.parametrize(
    "text", ["0 0.5 0.5 0.2 0.2\n0 0.5 SECRET=1 0.2 0.2\n", "\n0 SECRET=12345\n"]
)
def test_a_label_of_another_place_is_not_quoted_by_the_trainers(
    data: DataSet, text: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (data.root.parent / "secret").write_text(text)
    label = data.root / "labels/train/train0.txt"
    label.unlink()
    label.symlink_to(data.root.parent / "secret")
    images = DetectionImages(
        img_path=str(data.root / "images/train"), data=dict(data.keys), task="detect"
    )
    with pytest.raises(InputError, match=r"train0\.txt:2 is no row of numbers") as error:
        refuse_left_out(images.left_out)
    captured = capfd.readouterr()
    assert "SECRET" not in f"{error.value}{caplog.text}{captured.out}{captured.err}"


@pytest.mark.parametrize(
    "keys",
    [
        *({"channels": value} for value in (1, 4, "3", True, None, 0)),
        *({"kpt_shape": value} for value in (17, [17], ["a", 3], [0, 3], [17, 3, 1], "x")),
    ],
)
def test_keys_that_fail_later(data: DataSet, keys: dict[str, Any]) -> None:
    data.keys.update(keys)
    assert "another number of channels" in (m := data.refused()) or "no pair of numbers" in m


@pytest.mark.parametrize(
    "stem", ["½", "²", "٣", "-1", "1_000", " 7", "9" * 200, "一", "1e5", "0x1", "a b", "Ⅷ"]
)
def test_odd_image_names_are_taken(data: DataSet, stem: str) -> None:
    data.image(f"images/val/{stem}.jpg")
    data.label(f"val/{stem}.txt", GOOD)
    assert len(check_data(data.yaml).images["val"]) == 4


def test_a_folder_of_images_that_may_not_be_listed(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics would train without its images."""
    for name in ("more", ".thumbnails"):
        (data.root / "images/train" / name).mkdir()
    forbid_listing(monkeypatch, data.root / "images/train/.thumbnails")
    check_data(data.yaml)
    forbid_listing(monkeypatch, data.root / "images/train/more")
    with pytest.raises(InputError, match=r"train/more' may not be listed .*; give the permission"):
        check_data(data.yaml)
