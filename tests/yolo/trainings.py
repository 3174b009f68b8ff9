"""Trainings of a few seconds with the adapter's trainers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import detprune as dp

# isort: split
from detprune_yolo.data.drawing import DrawnSet, cached
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.sidecar import read_sidecar
from detprune_yolo.training.trainers import ConstrainedTrainer
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

NAMES = {0: "disk", 1: "square", 2: "triangle", 3: "star", 4: "ring", 5: "cross"}
OPTIONS: dict[str, Any] = {
    "imgsz": 64,
    "batch": 8,
    "nbs": 8,
    "device": "cpu",
    "optimizer": "SGD",
    "lr0": 0.01,
    "warmup_epochs": 0,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
}


def images() -> Path:
    return cached(DrawnSet(train=30, val=10, size=64, seed=1))


def tiny_model(width: float = 0.0625) -> DetectionModel:
    torch.manual_seed(0)
    layers = yaml_model_load("yolov3-tiny.yaml")
    layers["width_multiple"] = width
    model = DetectionModel(layers, nc=6, verbose=False)
    model.names = NAMES
    return model


def start_file(folder: Path, masks: dict[str, Tensor] | None = None, model: Any = None) -> Path:
    path = folder / "start.pt"
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, pruned_checkpoint(model if model is not None else tiny_model(), masks))
    return path


def trainer_of(
    kind: type[ResumableTrainer], settings: StageSettings, start: Path, folder: Path, **options: Any
) -> ResumableTrainer:
    overrides = {
        **OPTIONS,
        "model": str(start),
        "data": str(images()),
        "project": str(folder),
        "name": settings.stage,
        **options,
    }
    return kind.told(settings)(overrides=overrides)


def constrained_settings(method: dp.Method | None = None, **values: Any) -> StageSettings:
    return StageSettings(
        stage="constrained",
        method=method if method is not None else dp.ADMM(rho=0.1),
        budget=dp.Budget(compression=3.33),
        **values,
    )


def run_constrained(
    folder: Path,
    *callbacks: tuple[str, Any],
    every: float = 1,
    run_dir: Path | None = None,
    method: dp.Method = dp.SLR(rho=0.5, step_size=0.01),  # noqa: B008
    **options: Any,
) -> Any:
    settings = constrained_settings(method, every=every, run_dir=run_dir)
    trainer = trainer_of(ConstrainedTrainer, settings, start_file(folder), folder, **options)
    for event, callback in callbacks:
        trainer.add_callback(event, callback)
    trainer.train()
    return trainer


def sidecar(trainer: ResumableTrainer) -> dict[str, Any]:
    state = read_sidecar(trainer.wdir)
    assert state is not None
    return state


def same(a: Any, b: Any) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
