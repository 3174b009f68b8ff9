"""Validation: real scores, the stock validator's numbers, and nothing left behind."""

import copy
import json
import logging
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from detprune.errors import InputError
from detprune_yolo import validation
from detprune_yolo.coco import from_labels
from detprune_yolo.validation import validate

# isort: split
# the package above prepares the environment before ultralytics is imported
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER, ROOT

NAMES = {0: "red", 1: "green", 2: "blue"}


class ColourFinder(nn.Module):
    """Predicts one box per class: what is coloured purely; blind to some, imprecise if asked."""

    def __init__(
        self, names: dict[int, str] = NAMES, blind: tuple[int, ...] = (), shift: float = 0.0
    ) -> None:
        super().__init__()
        self.names = names
        self.blind = blind
        self.shift = shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        found = torch.zeros(len(images), 4 + len(self.names), 8)
        for number, image in enumerate(images):
            for label in set(range(3)) - set(self.blind):
                others = [channel for channel in range(3) if channel != label]
                y, x = torch.where((image[label] > 0.8) & (image[others].amax(0) < 0.2))
                if len(x):
                    left, right, top, bottom = x.min(), x.max() + 1, y.min(), y.max() + 1
                    left = left + self.shift * number
                    found[number, :4, label] = torch.stack(
                        [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
                    )
                    found[number, 4 + label, label] = 0.9 - 0.1 * label - top / 1000 - left / 10000
        return found


def tiny_detector(nc: int = 3) -> DetectionModel:
    torch.manual_seed(1)
    config = yaml.safe_load((ROOT / "cfg/models/v3/yolov3-tiny.yaml").read_text())
    return DetectionModel({**config, "width_multiple": 0.125}, nc=nc, verbose=False)


def draw(folder: Path, file_names: list[str]) -> Path:
    """Pictures of different shapes with up to three pure rectangles, their labels and the YAML."""
    generator = np.random.default_rng(3)
    for number, name in enumerate(file_names):
        width, height = ((64, 64), (64, 40), (40, 64))[number % 3]
        pixels: NDArray[np.uint8] = np.full((height, width, 3), 60, np.uint8)
        lines = []
        for label in range(3 - number % 2):
            # thirds of the picture, so that none covers another
            x, y = label * width // 3 + 1, int(generator.integers(0, height // 2))
            w, h = int(generator.integers(8, width // 3)), int(generator.integers(8, height // 2))
            pixels[y : y + h, x : x + w] = 255 * np.eye(3, dtype=np.uint8)[label]
            box = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            lines.append(" ".join(map(repr, [label, *box])))
        image = folder / "images" / name
        labels = (folder / "labels" / name).with_suffix(".txt")
        image.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(image)
        labels.write_text("\n".join(lines))
    data = {"path": str(folder), "train": "images", "val": "images", "names": NAMES}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))
    return folder / "data.yaml"


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    return draw(tmp_path / "set", [f"{name}.png" for name in ("007", "b", "c", "d", "e")])


@pytest.fixture
def empty_cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.iterdir())


def coco_file(path: Path, data_yaml: Path, **changes: Any) -> Path:
    """The labels as a COCO file, with other ids, one more category and one more image."""
    images, rows = [], []
    for file in sorted((data_yaml.parent / "images").iterdir()):
        with Image.open(file) as image:
            images.append((file.name, *image.size))
        label = data_yaml.parent / "labels" / f"{file.stem}.txt"
        rows.append(np.loadtxt(label, ndmin=2))
    truth = from_labels(images, rows, NAMES)
    for image in truth["images"]:
        image["id"] += 7
    for annotation in truth["annotations"]:
        annotation["image_id"] += 7
        annotation["category_id"] = 50 - annotation["category_id"]
    for category in truth["categories"]:
        category["id"] = 50 - category["id"]
    truth["categories"].insert(0, {"id": 3, "name": "other"})
    truth["images"].append({"id": 1, "file_name": "train/other.png", "width": 9, "height": 9})
    truth["annotations"].append(
        {"id": 99, "image_id": 1, "category_id": 3, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}
    )
    path.write_text(json.dumps({**truth, **changes}))
    return path


def stock(model: nn.Module, data_yaml: Path, folder: Path) -> dict[str, float]:
    options = {"imgsz": 64, "batch": 2, "rect": True, "plots": False, "verbose": False}
    args = {"data": str(data_yaml), "device": "cpu", "workers": 0, **options}
    threads = torch.get_num_threads()
    stats: dict[str, float] = DetectionValidator(save_dir=folder, args=args)(model=model)
    torch.set_num_threads(threads)
    return stats


# ------------------------------------------------------------------------------------- scores


def test_perfect_predictions_are_perfect(data_yaml: Path, empty_cwd: Path) -> None:
    scores = validate(ColourFinder(), data_yaml, imgsz=64, batch=2)
    assert scores.coco.map50 == scores.coco.map50_95 == 1.0
    assert scores.images == scores.coco.images == 5
    assert scores.coco.predictions == len(scores.predictions) == scores.coco.annotations == 13
    # Ultralytics interpolates differently: its best is 0.995
    assert scores.ultralytics_map50 == pytest.approx(0.995)
    assert scores.ultralytics_map50_95 == pytest.approx(0.995)
    assert all(type(value) is float for value in (scores.coco.map50, scores.ultralytics_map50_95))


def test_a_class_never_found_counts_as_zero(data_yaml: Path) -> None:
    scores = validate(ColourFinder(blind=(2,)), data_yaml, imgsz=64)
    assert scores.coco.map50 == pytest.approx(2 / 3)
    assert scores.ultralytics_map50 == pytest.approx(0.995 * 2 / 3)


def test_nothing_found_scores_zero(data_yaml: Path) -> None:
    scores = validate(ColourFinder(blind=(0, 1, 2)), data_yaml, imgsz=64)
    assert scores.predictions == []
    assert (scores.coco.map50, scores.ultralytics_map50, scores.ultralytics_map50_95) == (0, 0, 0)


@pytest.mark.parametrize("imgsz", [64, 96])
@pytest.mark.parametrize("rect", [True, False])
def test_predictions_are_in_pixels_of_the_original_image(
    data_yaml: Path, imgsz: int, rect: bool
) -> None:
    scores = validate(ColourFinder(), data_yaml, imgsz=imgsz, rect=rect)
    assert scores.coco.map50 == 1.0
    truth = json.loads(coco_file(data_yaml.parent / "all.json", data_yaml).read_text())
    drawn = {
        (a["image_id"] - 7, 50 - a["category_id"]): a["bbox"]
        for a in truth["annotations"]
        if a["image_id"] > 7
    }
    for found in scores.predictions:
        exact = drawn[found["image_id"], found["category_id"]]
        assert found["bbox"] == pytest.approx(exact, abs=0.002 if imgsz == 64 else 1)


def test_ultralytics_numbers_are_the_stock_validators(data_yaml: Path, tmp_path: Path) -> None:
    model = ColourFinder(shift=2.5)
    scores = validate(model, data_yaml, imgsz=64, batch=2)
    expected = stock(model, data_yaml, tmp_path / "stock")
    assert 0.1 < scores.ultralytics_map50_95 < 0.9
    assert scores.ultralytics_map50 == expected["metrics/mAP50(B)"]
    assert scores.ultralytics_map50_95 == expected["metrics/mAP50-95(B)"]


def test_annotations_give_what_the_same_labels_give(data_yaml: Path, tmp_path: Path) -> None:
    model = ColourFinder(shift=2.5)
    labels = validate(model, data_yaml, imgsz=64, batch=2)
    file = coco_file(tmp_path / "a.json", data_yaml)
    annotated = validate(model, data_yaml, imgsz=64, batch=2, annotations=file)
    assert annotated.coco == labels.coco
    assert annotated.images == 5  # and not the sixth of the file
    assert {p["category_id"] for p in annotated.predictions} == {47, 48, 49}
    assert {p["image_id"] for p in annotated.predictions} == {8, 9, 10, 11, 12}


def test_a_folder_that_looks_like_coco_changes_nothing(tmp_path: Path) -> None:
    """Ultralytics would number the classes as COCO's 80, and look for COCO's annotations."""
    data_yaml = draw(tmp_path / "coco", ["000000000001.png", "000000000002.png"])
    content = yaml.safe_load(data_yaml.read_text())
    files = sorted((tmp_path / "coco" / "images").iterdir())
    (tmp_path / "coco" / "val2017.txt").write_text("\n".join(map(str, files)))
    data_yaml.write_text(yaml.safe_dump({**content, "val": "val2017.txt"}))
    assert validate(ColourFinder(), data_yaml, imgsz=64).coco.map50 == 1.0


def test_a_slow_machine_loses_no_predictions(
    data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' NMS stops after 2 s and a little per image; here each look at the clock takes 10."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr("ultralytics.utils.nms.time.time", lambda: next(clock))
    assert validate(ColourFinder(), data_yaml, imgsz=64, batch=5).coco.map50 == 1.0


# ----------------------------------------------------------------------------- nothing changes


def test_the_model_is_left_as_it_was(data_yaml: Path, empty_cwd: Path) -> None:
    model = tiny_detector()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
    model.train()
    model.model[3].eval()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    frozen.grad = torch.ones_like(frozen)
    before = copy.deepcopy(model)

    first = validate(model, data_yaml, imgsz=64, batch=2)
    assert validate(model, data_yaml, imgsz=64, batch=2) == first
    assert first.predictions
    assert 0 <= first.coco.map50 <= 1

    states = zip(before.state_dict().items(), model.state_dict().items(), strict=True)
    for (name, old), (same, new) in states:
        assert name == same
        assert new.dtype == old.dtype
        assert torch.equal(old, new), name
    for old, new in zip(before.modules(), model.modules(), strict=True):
        assert type(old) is type(new)
        assert old.training == new.training
    for old, new in zip(before.parameters(), model.parameters(), strict=True):
        assert old.requires_grad == new.requires_grad
        assert not new.is_inference()
    assert torch.equal(frozen.grad, torch.ones_like(frozen))
    detect = model.model[-1]
    assert not any(
        tensor.is_inference() for tensor in vars(detect).values() if torch.is_tensor(tensor)
    )


def test_random_states_threads_and_log_level_are_left_as_they_were(data_yaml: Path) -> None:
    LOGGER.setLevel(logging.INFO)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with torch.autocast("cpu"):  # ColourFinder checks that it is off inside
        validate(ColourFinder(), data_yaml, imgsz=64)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert before == after
    assert torch.get_num_threads() == 1
    assert LOGGER.level == logging.INFO


def test_a_half_precision_model_is_measured_in_float32(data_yaml: Path) -> None:
    model = tiny_detector().half()
    validate(model, data_yaml, imgsz=64)
    assert {p.dtype for p in model.parameters()} == {torch.float16}


def test_nothing_is_printed_or_written_but_the_label_cache(
    data_yaml: Path, empty_cwd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    LOGGER.setLevel(logging.INFO)
    files = set(data_yaml.parent.rglob("*"))
    validate(ColourFinder(), data_yaml, imgsz=64)
    assert set(data_yaml.parent.rglob("*")) - files == {data_yaml.parent / "labels.cache"}
    assert capfd.readouterr() == ("", "")


def test_no_package_is_installed_and_no_host_is_asked(
    data_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"{arguments} {options}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("run", "Popen", "check_output"):
        monkeypatch.setattr(subprocess, name, refuse)
    file = coco_file(tmp_path / "a.json", data_yaml)
    validate(ColourFinder(), data_yaml, imgsz=64, annotations=file)
    assert "faster_coco_eval" not in sys.modules


# --------------------------------------------------------------------------------- bad inputs


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
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
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
