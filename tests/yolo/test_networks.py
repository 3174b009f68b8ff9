"""The detector of a recipe, the devices it is measured on, and where Ultralytics keeps its settings."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError
from trainings import NAMES, start_file, tiny_model

import detprune as dp

# isort: split
from detprune_yolo.network_task import first_device
from detprune_yolo.networks import build_network
from detprune_yolo.process_state import no_downloads
from detprune_yolo.recipe import ModelSpec

# isort: split
from ultralytics import YOLO
from ultralytics.nn.tasks import yaml_model_load


def test_the_scale_of_a_name_counts() -> None:
    sizes = []
    for cfg in ("yolo11n.yaml", "yolo11s.yaml"):
        network = build_network(ModelSpec(cfg=cfg), NAMES, any_classes=True)
        sizes.append(sum(p.numel() for p in network.parameters()))
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.parametrize("cfg", ["yolo11n.yaml", "yolov8.yaml", "yolov3-tiny.yaml"])
def test_the_width_of_a_recipe_replaces_the_architectures_own(cfg: str) -> None:
    """With scales (yolo11n), without one named (yolov8: Ultralytics takes n) and without scales."""
    networks = [
        build_network(ModelSpec(cfg=cfg, width=width), NAMES, any_classes=True)
        for width in (None, 0.125)
    ]
    usual, narrow = (sum(p.numel() for p in network.parameters()) for network in networks)
    assert narrow < usual / 2
    assert len(networks[0].model) == len(networks[1].model)  # as deep as before


@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "__import__('os').system('touch code_ran')"},
        {"activation": "nn.SiLu()"},
        {"activation": "nn.Conv2d(1, 1, 1)"},
        {"scales": [1, 2]},
        {"scales": {"n": [1]}},
        {"reg_max": 0},
        {"row": [-1, 1, "MyConv", [3]]},
        {"row": [-1, 1, "nn.Foo", [3]]},
        {"row": [-1, 1, "torch_safe_load", ["evil.pt"]]},
        {"row": [-1, 1, "Conv", [3, 3, 1, 1, 1, 1, 1, 1]]},
        {"row": [99, 1, "Conv", [32, 3, 1]]},
        {"row": [-1, "x", "Conv", [32, 3, 1]]},
        {"row": [-1, 1, "Conv"]},
        {"row": [-1, 1, "Conv", [0, 3, 1]]},
        {"row": "Conv"},
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [None, 0.0625])
def test_an_architecture_that_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], width: float | None
) -> None:
    monkeypatch.chdir(tmp_path)
    description = yaml_model_load("yolov3-tiny.yaml")
    if row := changes.get("row"):
        description["backbone"][2] = row
    description.update(changes)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises((dp.InputError, ValidationError), match=r"mine\.yaml"):  # of the recipe
        build_network(ModelSpec(cfg="mine.yaml", width=width), NAMES, any_classes=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_rows_of_the_head_follow_their_classes_when_a_dense_stage_comes(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        for index in range(6):
            model.model[-1].cv3[0][-1].bias[index] = index
    start = start_file(tmp_path, model=model)
    names = {0: "cross", 1: "disk", 2: "comet"}
    network = build_network(ModelSpec(weights=start), names, any_classes=True)
    assert network.names == names
    assert network.model[-1].cv3[0][-1].bias[:2].tolist() == [5.0, 0.0]


def test_classes_in_another_order_are_refused_without_a_dense_stage(tmp_path: Path) -> None:
    start = start_file(tmp_path)
    swapped = {**NAMES, 0: "square", 1: "disk"}
    with pytest.raises(dp.InputError, match="'disk' as number 0, the data set as 1"):
        build_network(ModelSpec(weights=start), swapped, any_classes=False)
    spelled = {index: name.upper() for index, name in NAMES.items()}
    network = build_network(ModelSpec(weights=start), spelled, any_classes=False)
    assert network.names == spelled


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", "cpu"),
        (0, "cuda:0"),
        ("1,2", "cuda:1"),
        ([2, 3], "cuda:2"),
        ("0,", "cuda:0"),
        (None, "free"),
        ("", "free"),
        (-1, "free"),
        ([-1, -1], "free"),
    ],
)
def test_measured_on_the_first_device_of_training(device: Any, expected: str) -> None:
    free = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert first_device(device) == (free if expected == "free" else expected)


def test_a_missing_file_asks_no_network(tmp_path: Path) -> None:
    with no_downloads(), pytest.raises(ConnectionError, match="forbids to fetch"):
        YOLO(str(tmp_path / "yolo26n.pt"))


def test_without_a_home_that_can_be_written_a_temporary_folder_serves(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "YOLO_CONFIG_DIR"}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "file")
    output = subprocess.run(
        [sys.executable, "-c", "import detprune_yolo, os; print(os.environ['YOLO_CONFIG_DIR'])"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout
    assert Path(output.splitlines()[-1]).name.startswith("detprune-")


def test_a_damaged_image_is_pillows_own_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "bad.jpg")
