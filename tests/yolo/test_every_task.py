"""Every task with three generations of networks, from constrained training to plain Ultralytics, and in a run."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from task_networks import DESCRIPTIONS, ENDINGS, SIZE, drawn, layers_of, options, start_file

import detprune as dp
from command_line import detprune_here
from detprune.run.export.onnx_files import exporter_warnings_off

# isort: split
from detprune_yolo import RetrainingTrainer, constrained
from detprune_yolo.channels import lacks_channels
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics import YOLO


def sizes(network: Any) -> list[int]:
    return [p.numel() for p in network.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_from_constrained_training_to_plain_ultralytics(description: str, tmp_path: Path) -> None:
    kind = layers_of(description)[1]
    start = start_file(tmp_path / "start.pt", description)
    trainer = constrained(dp.ADMM(rho=0.1), dp.Budget(macs=0.6), dp.CoupledChannels(round_to=2))
    YOLO(str(start)).train(trainer=trainer, **options(kind.task, tmp_path, "constrained"))
    smaller = tmp_path / "constrained" / "weights" / "shrunk.pt"
    assert lacks_channels(load_model(smaller))
    assert sum(sizes(load_model(smaller))) < sum(sizes(load_model(start)))
    YOLO(str(smaller)).train(
        trainer=RetrainingTrainer, **options(kind.task, tmp_path, "retrained", val=False)
    )
    best = tmp_path / "retrained" / "weights" / "best.pt"
    assert sizes(load_model(best)) == sizes(load_model(smaller))

    plain = YOLO(str(best))  # from here on without detprune
    assert plain.task == kind.task
    assert type(plain.model) is kind.network
    common = {"imgsz": SIZE, "device": "cpu", "verbose": False, "project": str(tmp_path)}
    place = drawn(kind.task)
    results = plain.val(data=str(place), plots=False, **common).results_dict
    assert kind.watched.key in results
    image = next((place if place.is_dir() else place.parent).rglob("*.png"))
    assert len(plain.predict(str(image), **common)) == 1
    with exporter_warnings_off():
        assert Path(plain.export(format="onnx", imgsz=SIZE)).is_file()


RECIPE: dict[str, Any] = {
    "task": "yolo",
    "measure": False,
    "name": "task",
    "method": {"name": "slr", "rho": 0.1},
    "budget": {"compression": 2},
    "distillation": {"weight": 0.5},
    "train": {"imgsz": 64, "batch": 8, "nbs": 8, "device": "cpu", "lr0": 0.01, "verbose": False},
    "stages": {
        "dense": {"epochs": 1},
        "constrained": {"epochs": 1, "every": 1, "check_every": 1, "train": {"optimizer": "SGD"}},
        "retrain": {"epochs": 1},
    },
}
HEADLINES = {
    "segment": "mask mAP@0.5",
    "pose": "pose mAP@0.5",
    "obb": "rotated mAP50",
    "classify": "top-1 accuracy",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "version"),
    [("segment", "yolov8n"), ("pose", "yolov8n"), ("obb", "yolo26n"), ("classify", "yolov8n")],
)
def test_a_run(
    task: str,
    version: str,
    tmp_path: Path,
    recipe_file: Callable[[Path, dict[str, Any]], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = copy.deepcopy(RECIPE)
    recipe["model"] = {"cfg": f"{version}{ENDINGS[task]}.yaml", "width": 0.0625}
    recipe["data"] = {"drawn": {"train": 8, "val": 4, "size": SIZE, "classes": 3}}
    file = recipe_file(tmp_path, recipe)
    assert detprune_here("run", file, "--out", tmp_path / "run", monkeypatch=monkeypatch) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metric"] == HEADLINES[task]
    assert next(iter(summary["metrics"]["final"])) == HEADLINES[task]
    assert any("one-to-one" in note for note in summary["notes"]) == (version == "yolo26n")
    assert (tmp_path / "run" / "pictures" / "detections.jpg").is_file()
    pruned = YOLO(str(tmp_path / "run" / "pruned.pt"))
    assert pruned.task == task
    zeros = sum(int((p == 0).sum()) for p in pruned.model.parameters())
    assert zeros > 0.4 * sum(p.numel() for p in pruned.model.parameters())
    assert torch.isfinite(next(pruned.model.parameters())).all()
    if task in ("segment", "classify"):  # two outputs; data that is a folder
        capsys.readouterr()
        export = ("export", tmp_path / "run", "--format", "torchscript")
        assert detprune_here(*export, monkeypatch=monkeypatch) == 0
        said = capsys.readouterr().out
        assert "largest difference of an output from PyTorch" in said
        assert f"{HEADLINES[task]}: " in said
        assert "of the dense network in float32" in said
