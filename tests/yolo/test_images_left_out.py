"""Images that Ultralytics leaves out of training with a line among its output: they are refused."""

from pathlib import Path
from typing import Any

import pytest
from detection_set import GOOD
from PIL import Image

from detprune.errors import InputError
from detprune_yolo.data.building import build_images
from detprune_yolo.data.check import check_data
from detprune_yolo.data.places import check_class_folders
from detprune_yolo.kinds import CLASSIFY, DETECT, Kind
from detprune_yolo.measure.calibration import TrainingImages

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 64), 90).convert("RGB").save(path, "JPEG", quality=95)


def cut_off(path: Path) -> bytes:
    """Take away the second half of an image, as a broken download does; its header is whole."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path.read_bytes()


def build(place: Path, kind: Kind, mode: str) -> Any:
    reads = check_class_folders if kind == CLASSIFY else check_det_dataset
    data = reads(place if kind == CLASSIFY else str(place))
    split = "train" if mode == "train" else "val"
    return build_images(
        get_cfg(overrides={"task": kind.task, "imgsz": 64}), data[split], 2, data, kind, mode=mode
    )


@pytest.fixture(params=[DETECT, CLASSIFY], ids=["detect", "classify"])
def images(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Kind, list[Path]]:
    """A data set of four images, its kind, and the images of which the second half is missing."""
    kind: Kind = request.param
    if kind == CLASSIFY:
        files = [tmp_path / s / c / f"{s}.jpg" for s in ("train", "val") for c in ("a", "b")]
        place = tmp_path
    else:
        files = [tmp_path / "images" / s / f"{s}{n}.jpg" for s in ("train", "val") for n in (0, 1)]
        place = tmp_path / "data.yaml"
        place.write_text(
            f"path: {tmp_path}\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n"
        )
    for file in files:
        picture(file)
        if kind == DETECT:
            label = tmp_path / "labels" / file.parent.name / f"{file.stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(GOOD)
    return place, kind, [files[0], files[2]]


def test_training_without_some_images_is_refused(images: tuple[Path, Kind, list[Path]]) -> None:
    place, kind, (train, _) = images
    assert len(build(place, kind, "train")) == 2
    content = cut_off(train)
    for _ in range(2):  # also where the labels were scanned before
        with pytest.raises(InputError, match=r"1 training image.*train.*\.jpg.*; repair") as caught:
            build(place, kind, "train")
        assert str(train) in str(caught.value)
    assert train.read_bytes() == content


def test_calibration_without_some_images_is_refused(images: tuple[Path, Kind, list[Path]]) -> None:
    """Statistics of batch norm, and int8 of a run that is exported after an image was damaged."""
    place, kind, (train, _) = images
    assert len(TrainingImages(place, count=9, imgsz=64, batch=2, kind=kind)) == 2
    cut_off(train)
    with pytest.raises(InputError, match=r"1 training image.* would go on without them: .*train"):
        TrainingImages(place, count=9, imgsz=64, batch=2, kind=kind)


def test_validation_goes_on_without_them(images: tuple[Path, Kind, list[Path]]) -> None:
    place, kind, (_, val) = images
    cut_off(val)
    assert len(build(place, kind, "val")) == 1


@pytest.mark.parametrize("name", ["@eaDir", ".@__thumb", "#recycle"])
def test_images_in_folders_of_the_system_are_refused(
    images: tuple[Path, Kind, list[Path]], name: str
) -> None:
    place, kind, (train, _) = images
    thumbnail = train.parent / name / train.name / "small.jpg"
    picture(thumbnail)
    if kind == DETECT and name.startswith("."):  # Ultralytics does not find it
        assert len(build(place, kind, "train")) == 2
        assert len(check_data(place, kind=kind).images["train"]) == 2
        return
    said = r"images in hidden folders, or in folders that a storage makes .*small\.jpg.*; remove"
    with pytest.raises(InputError, match=said):
        build(place, kind, "train")
    with pytest.raises(InputError, match=said):
        check_data(place, kind=kind)
