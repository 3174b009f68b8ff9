"""Batch-norm statistics and the task loss of a detector are those of its training images."""

import copy
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from detection_recipe import TINY
from torch import nn
from trainings import constrained_settings, images, start_file, tiny_model, trainer_of

from detprune.run.directory import RunDirectory
from detprune.run.recipe import validate
from detprune_yolo.measure.calibration import TrainingImages, estimate_batch_norm, task_loss
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.task import DetectionTask
from detprune_yolo.training.trainers import ConstrainedTrainer
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics.cfg import get_cfg


def test_the_statistics_are_those_of_the_images() -> None:
    model = tiny_model().eval()
    twin = copy.deepcopy(model)
    state = torch.get_rng_state()
    chosen = TrainingImages(images(), count=10, imgsz=64, batch=4)
    estimate_batch_norm(model, chosen, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    files = sorted((images().parent / "images" / "train").iterdir())
    assert len(files) == 30
    read = [cv2.imread(str(file)) for file in files[::3]]
    pixels = torch.stack([torch.from_numpy(image[..., ::-1].copy()) for image in read])
    batches = (pixels.permute(0, 3, 1, 2).float() / 255).split([3, 3, 4])
    conv, norm = twin.model[0].conv, model.model[0].bn
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        values = [conv(batch) for batch in batches]
    means = torch.stack([v.mean((0, 2, 3)) for v in values]).mean(0)
    variances = torch.stack([v.transpose(0, 1).flatten(1).var(1) for v in values]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    for before, after in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_the_recipe_says_how_many(tmp_path: Path) -> None:
    recipe = validate(DetectionRecipe, {**copy.deepcopy(TINY), "batch_norm_images": 6})
    task = DetectionTask(recipe, RunDirectory(tmp_path))
    model = task.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.estimate_batch_norm(model)
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value, before[n])}
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_what_is_checked_and_saved_has_the_statistics_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[nn.Module] = []

    def check(_: Any, network: nn.Module, __: Any) -> float:
        checked.append(network)
        return 0.5

    monkeypatch.setattr("detprune_yolo.training.trainers.hard_pruned_metric", check)
    settings = constrained_settings(check_every=2, batch_norm_images=10)
    trainer = trainer_of(ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=2)
    trainer.train()
    (network,) = checked
    saved = load_model(tmp_path / "constrained" / "weights" / "hard_pruned.pt")
    chosen = TrainingImages(images(), count=10, imgsz=64, batch=trainer.batch_size)
    expected = copy.deepcopy(network)
    with torch.no_grad():
        for name, buffer in expected.named_buffers():
            if "running" in name:
                buffer.fill_(1.0)
    estimate_batch_norm(expected, chosen, torch.device("cpu"))
    for name, buffer in expected.named_buffers():
        assert torch.equal(buffer, network.get_buffer(name)), name
        torch.testing.assert_close(
            saved.get_buffer(name).float(), buffer.float(), rtol=2e-3, atol=2e-3
        )


def test_the_loss_is_ultralytics_own_per_image(tmp_path: Path) -> None:
    model = tiny_model().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = TrainingImages(images(), count=10, imgsz=64, batch=4)
    value = task_loss(model, chosen, torch.device("cpu"))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    recipe = {**copy.deepcopy(TINY), "batch_norm_images": 0}
    task = DetectionTask(validate(DetectionRecipe, recipe), RunDirectory(tmp_path))
    eights = TrainingImages(images(), count=10, imgsz=64, batch=8)  # the recipe's batch
    assert task.loss_probe(model, 10)() == task_loss(model, eights, torch.device("cpu"))
    own = copy.deepcopy(model)
    own.args = get_cfg()
    losses = []
    for start, end in ((0, 3), (3, 6), (6, 10)):
        batch = next(
            iter(
                TrainingImages(images(), count=10, imgsz=64, batch=10).batches(torch.device("cpu"))
            )
        )
        part = slice(start, end)
        held = [(i >= part.start) and (i < part.stop) for i in batch["batch_idx"].long().tolist()]
        mine = {
            "img": batch["img"][part],
            "batch_idx": batch["batch_idx"][held] - start,
            "cls": batch["cls"][held],
            "bboxes": batch["bboxes"][held],
        }
        with torch.no_grad():
            losses.append(float(own.loss(mine)[0].sum()))
    assert value == pytest.approx(sum(losses) / 10, rel=1e-5)
    with torch.no_grad():
        model.model[-1].cv3[0][-1].bias.add_(1)
    assert task_loss(model, chosen, torch.device("cpu")) != pytest.approx(value, rel=1e-3)
