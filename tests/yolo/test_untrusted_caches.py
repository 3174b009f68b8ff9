"""Files beside images and labels that Ultralytics would run, trust, overwrite or delete are left alone."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trainings import OPTIONS, start_file, tiny_model

import detprune as dp

# isort: split
from detprune_yolo.data.building import build_images
from detprune_yolo.data.drawing import DrawnSet, draw
from detprune_yolo.data.images import DetectionImages, labels_folder
from detprune_yolo.measure.calibration import TrainingImages
from detprune_yolo.measure.validation import validate
from detprune_yolo.training.constrained import constrained
from detprune_yolo.training.trainers import RetrainingTrainer

# isort: split
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import DATASET_CACHE_VERSION
from ultralytics.data.utils import check_det_dataset

pytestmark = pytest.mark.slow


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.proof}",)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw(DrawnSet(train=8, val=4, size=64, seed=1), tmp_path / "set")


@pytest.fixture
def spoiled(data: Path) -> dict[Path, bytes]:
    """Caches that run code, for both splits; file → content."""
    caches = {}
    for split in ("train", "val"):
        cache = data.parent / "labels" / f"{split}.cache"
        content: Any = {"version": DATASET_CACHE_VERSION, "evil": Evil(data.parent / "proof")}
        with cache.open("wb") as file:
            np.save(file, content)
        caches[cache] = cache.read_bytes()
    return caches


def untouched(caches: dict[Path, bytes]) -> bool:
    proof = next(iter(caches)).parents[1] / "proof"
    return not proof.exists() and all(f.read_bytes() == content for f, content in caches.items())


def test_the_malicious_cache_works(data: Path, spoiled: dict[Path, bytes]) -> None:
    described = check_det_dataset(str(data), autodownload=False)
    build_yolo_dataset(get_cfg(overrides={"task": "detect"}), described["val"], 4, described)
    assert not untouched(spoiled)


def test_a_cache_runs_nothing_in_training_from_python(
    data: Path, spoiled: dict[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = constrained(dp.ADMM(rho=0.1), dp.Budget(compression=2), batch_norm_images=4)
    options = {**OPTIONS, "data": str(data), "project": str(tmp_path), "epochs": 1}
    YOLO(str(start_file(tmp_path))).train(trainer=trainer, **options)
    assert untouched(spoiled)


def test_a_cache_runs_nothing_in_validation_and_probes(
    data: Path, spoiled: dict[Path, bytes]
) -> None:
    validate(tiny_model(), data, imgsz=64)
    assert len(TrainingImages(data, count=4, imgsz=64, batch=2)) == 4
    assert untouched(spoiled)


def built(data: Path, **options: Any) -> DetectionImages:
    described = check_det_dataset(str(data), autodownload=False)
    settings = get_cfg(overrides={"task": "detect", "imgsz": 64, **options})
    return build_images(settings, described["train"], 4, described)


def test_images_and_labels_are_those_of_ultralytics(data: Path) -> None:
    described = check_det_dataset(str(data), autodownload=False)
    for mode, rect in (("train", False), ("val", True)):
        settings = get_cfg(overrides={"task": "detect", "imgsz": 96, "fraction": 0.5})
        ours = build_images(settings, described["train"], 4, described, mode=mode, rect=rect)
        stock = build_yolo_dataset(settings, described["train"], 4, described, mode=mode, rect=rect)
        differing = {"npy_files", "_beside", "transforms", "labels", "batch_shapes", "batch", "hyp"}
        for name in vars(stock).keys() - differing:
            assert getattr(ours, name) == getattr(stock, name), name
        for own, other in zip(ours.labels, stock.labels, strict=True):
            assert own.keys() == other.keys()
            assert all(np.array_equal(own[key], other[key]) for key in own)
        if rect:
            np.testing.assert_array_equal(ours.batch_shapes, stock.batch_shapes)
        assert [type(t) for t in ours.transforms.transforms] == [
            type(t) for t in stock.transforms.transforms
        ]


def test_labels_are_scanned_once_and_again_after_a_change(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    stock = DetectionImages.cache_labels
    monkeypatch.setattr(DetectionImages, "cache_labels", lambda *a: (scans.append(1), stock(*a))[1])
    first = built(data)
    assert [len(x["cls"]) for x in built(data).labels] == [len(x["cls"]) for x in first.labels]
    assert len(scans) == 1
    file = Path(first.label_files[0])
    file.write_text("0 0.5 0.5 0.25 0.25\n")
    assert built(data).labels[0]["bboxes"].tolist() == [[0.5, 0.5, 0.25, 0.25]]
    assert len(scans) == 2
    assert not list(data.parent.rglob("*.cache"))


def test_only_a_private_folder_of_labels_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tmp_path / "open"
    others.mkdir()
    others.chmod(0o777)
    for given in (others, tmp_path / "none", tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(others)
        monkeypatch.setenv("DETPRUNE_YOLO_LABELS", str(given))
        assert labels_folder() != given
        assert labels_folder().stat().st_mode & 0o077 == 0


def test_arrays_beside_images_are_neither_read_nor_removed(data: Path) -> None:
    images = sorted((data.parent / "images/train").iterdir())
    white = np.full((64, 64, 3), 255, np.uint8)
    for image in images:
        np.save(image.with_suffix(".npy"), white)
    (broken := images[0].with_suffix(".npy")).write_bytes(b"my features")
    found = built(data, cache="ram")
    assert not np.array_equal(found.load_image(1)[0], white)
    assert broken.read_bytes() == b"my features"


def test_a_disk_cache_destroys_nothing(data: Path) -> None:
    image = sorted((data.parent / "images/train").iterdir())[0]
    same_size = np.zeros((64, 64, 3), np.uint8)  # a mask, or another image that stood here before
    for content in (np.zeros((7, 7)), np.zeros((9, 9, 3), np.uint8), same_size):
        np.save(image.with_suffix(".npy"), content)
        with pytest.raises(dp.InputError, match=r"no copies of the images \(1\): .*npy; move them"):
            built(data, cache="disk")
        np.testing.assert_array_equal(np.load(image.with_suffix(".npy")), content)
    image.with_suffix(".npy").unlink()
    pixels = built(data, cache="disk").load_image(0)[0]
    np.testing.assert_array_equal(np.load(image.with_suffix(".npy")), pixels)
    np.testing.assert_array_equal(built(data, cache="disk").load_image(0)[0], pixels)


def test_images_are_not_repaired(data: Path) -> None:
    folder = data.parent / "images/train"
    image = sorted(folder.iterdir())[0]
    jpeg = image.with_suffix(".jpg")
    Image.open(image).convert("RGB").save(jpeg)
    image.unlink()
    jpeg.write_bytes(content := jpeg.read_bytes() + b"\n")  # text behind the picture's end
    found = built(data)
    assert str(jpeg) in found.im_files
    assert jpeg.read_bytes() == content
    jpeg.write_bytes(content := content[:-400])
    with pytest.raises(dp.InputError, match=rf"1 training images are damaged.*{jpeg}"):
        built(data)
    assert jpeg.read_bytes() == content


def test_what_cannot_be_read_is_named(data: Path) -> None:
    found = built(data)
    Path(found.im_files[2]).write_bytes(b"no image any more")
    with pytest.raises(dp.InputError, match=f"{found.im_files[2]} cannot be read or decoded"):
        found.load_image(2)
    os.mkfifo(data.parent / "images/train/pipe.png")
    with pytest.raises(dp.InputError, match=r"pipes or devices \(1\): .*pipe\.png"):
        built(data)


def test_images_without_any_label_are_refused(data: Path) -> None:
    (data.parent / "labels").rename(data.parent / "elsewhere")
    with pytest.raises(dp.InputError, match=r"no labels for the images .*labels/train/.*\.txt"):
        built(data)


def test_a_download_is_not_followed_from_python(data: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    script = f"download: open({str(proof)!r}, 'w').close()\n"
    data.write_text(data.read_text() + script, encoding="utf-8")
    (data.parent / "images/val").rename(data.parent / "images/elsewhere")
    for given in (data, "https://host.invalid/set.yaml", "ul://somebody/datasets/set"):
        overrides = {**OPTIONS, "model": "yolov3-tiny.yaml", "data": str(given)}
        with pytest.raises(dp.InputError, match="nothing is downloaded"):
            RetrainingTrainer(overrides={**overrides, "project": str(tmp_path)})
    assert not proof.exists()


def test_the_data_set_that_ultralytics_takes_by_itself_is_explained(tmp_path: Path) -> None:
    overrides = {**OPTIONS, "model": "yolov3-tiny.yaml", "data": "coco8.yaml"}
    with pytest.raises(dp.InputError, match=r"coco8\.yaml, which Ultralytics takes where data= is"):
        RetrainingTrainer(overrides={**overrides, "project": str(tmp_path)})


@pytest.mark.parametrize("stem", ["½", "²", "٣", "-1", "1_000", "007"])
def test_odd_image_names_are_validated(data: Path, stem: str) -> None:
    for folder, end in (("images", ".png"), ("labels", ".txt")):
        file = sorted((data.parent / folder / "val").iterdir())[0]
        file.rename(file.with_name(stem + end))
    scores = validate(tiny_model(), data, imgsz=64)
    assert scores.images == 4
