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
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from colours import ColourFinder, coco_file, draw
from torch import nn

from detprune.errors import InputError
from detprune_yolo.measure.validation import validate

# isort: split
# the package above prepares the environment before ultralytics is imported
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER, ROOT


def tiny_detector(nc: int = 3) -> DetectionModel:
    torch.manual_seed(1)
    config = yaml.safe_load((ROOT / "cfg/models/v3/yolov3-tiny.yaml").read_text())
    model = DetectionModel({**config, "width_multiple": 0.125}, nc=nc, verbose=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return model


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


class Thirteen(ColourFinder):
    """Knows 13 classes, and calls blue the last; from the 12th on, COCO's numbers have gaps."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = super().forward(images)
        found[:, [4 + 2, 4 + 12]] = found[:, [4 + 12, 4 + 2]]
        return found


def test_a_folder_that_looks_like_coco_changes_nothing(tmp_path: Path) -> None:
    """Ultralytics would number the classes as COCO's 80, and look for COCO's annotations."""
    data_yaml = draw(tmp_path / "coco", ["000000000001.png", "000000000002.png"])
    names = {index: f"class {index}" for index in range(13)}
    files = sorted((tmp_path / "coco" / "images").iterdir())
    (tmp_path / "coco" / "val2017.txt").write_text("\n".join(map(str, files)))
    content = {**yaml.safe_load(data_yaml.read_text()), "val": "val2017.txt", "names": names}
    data_yaml.write_text(yaml.safe_dump(content))
    for file in (tmp_path / "coco" / "labels").iterdir():
        lines = file.read_text().splitlines()
        file.write_text("\n".join("1" + line if line[0] == "2" else line for line in lines))
    scores = validate(Thirteen(names=names), data_yaml, imgsz=64)
    assert scores.coco.map50 == 1.0
    assert {p["category_id"] for p in scores.predictions} == {1, 2, 13}


def test_a_slow_machine_loses_no_predictions(
    data_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics' NMS stops after 2 s and a little per image; here each look at the clock takes 10."""
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr("ultralytics.utils.nms.time", SimpleNamespace(time=lambda: next(clock)))
    assert validate(ColourFinder(), data_yaml, imgsz=64, batch=5).coco.map50 == 1.0


# ----------------------------------------------------------------------------- nothing changes


def test_the_model_is_left_as_it_was(data_yaml: Path, empty_cwd: Path) -> None:
    model = tiny_detector()
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


def test_random_states_and_log_level_are_left_as_they_were(data_yaml: Path) -> None:
    LOGGER.setLevel(logging.INFO)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    with torch.autocast("cpu"):  # ColourFinder checks that it is off inside
        validate(ColourFinder(), data_yaml, imgsz=64)
    after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert before == after
    assert LOGGER.level == logging.INFO


def test_the_number_of_threads_is_kept(data_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics sets its own on a CPU, which changes sums in their last digits."""
    monkeypatch.setattr("ultralytics.utils.torch_utils.NUM_THREADS", 3)
    inside = []
    model = ColourFinder()
    model.register_forward_pre_hook(lambda *_: inside.append(torch.get_num_threads()))
    validate(model, data_yaml, imgsz=64, batch=5)
    assert inside == [1]
    for file in (data_yaml.parent / "images").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="Error loading data"):
        validate(model, data_yaml, imgsz=64)
    assert torch.get_num_threads() == 1


def test_a_half_precision_model_is_measured_in_float32(data_yaml: Path) -> None:
    """Batch norm that is fused in half precision, as Ultralytics would, gives other weights."""
    model = tiny_detector().half()
    seen = []
    model.register_forward_pre_hook(lambda m, _: seen.append(m.model[0].conv.weight.clone()))
    validate(model, data_yaml, imgsz=64)
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    from_half = seen[-1]
    validate(model.float(), data_yaml, imgsz=64)
    assert from_half.dtype == torch.float32
    assert torch.equal(from_half, seen[-1])
    assert not torch.equal(from_half, model.model[0].conv.weight)  # fused


def test_nothing_is_printed_or_written(
    data_yaml: Path, empty_cwd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    LOGGER.setLevel(logging.INFO)
    files = set(data_yaml.parent.rglob("*"))
    validate(ColourFinder(), data_yaml, imgsz=64)
    assert set(data_yaml.parent.rglob("*")) == files
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
