"""Batch-norm statistics of a detector are those of its training images."""

import copy
from pathlib import Path

import cv2
import torch
from detection_recipe import TINY
from torch import nn
from trainings import images, tiny_model

from detprune.recipe import validate
from detprune.rundir import RunDirectory
from detprune_yolo.measure.batch_norm import estimate_batch_norm
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.task import DetectionTask


def test_the_statistics_are_those_of_the_images() -> None:
    model = tiny_model().eval()
    twin = copy.deepcopy(model)
    state = torch.get_rng_state()
    estimate_batch_norm(model, images(), images=10, imgsz=64, batch=4, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    files = sorted((images().parent / "images" / "train").iterdir())
    assert len(files) == 30
    read = [cv2.imread(str(file)) for file in files[::3]]
    pixels = torch.stack([torch.from_numpy(image[..., ::-1].copy()) for image in read])
    batches = (pixels.permute(0, 3, 1, 2).float() / 255).split(4)
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
