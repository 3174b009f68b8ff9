"""Batch-norm statistics estimated anew after hard pruning."""

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask

pytestmark = pytest.mark.slow


def task_of(recipe: dict[str, Any], folder: Path, **changes: Any) -> ClassificationTask:
    parsed = validate(ClassificationRecipe, {**recipe, **changes})
    return ClassificationTask(parsed, RunDirectory(folder))


def test_the_statistics_are_those_of_the_images(tiny: dict[str, Any], tmp_path: Path) -> None:
    data = {**tiny["data"], "augment": False}
    task = task_of(tiny, tmp_path, data=data, batch_norm_images=80)
    model = task.build_model().eval()
    twin = copy.deepcopy(model)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # type: ignore[index, union-attr]
    task.estimate_batch_norm(model)
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert not any(module.training for module in model.modules())

    images = torch.stack([task.data.train[index][0] for index in range(0, 160, 2)])
    first: dict[str, list[torch.Tensor]] = {"mean": [], "var": []}
    twin.train()
    conv, norm = next(
        pair
        for pair in zip(twin.modules(), list(twin.modules())[1:], strict=False)
        if isinstance(pair[1], nn.BatchNorm2d)
    )
    for batch in images.split(40):
        values = conv(batch)
        first["mean"].append(values.mean((0, 2, 3)))
        first["var"].append(values.transpose(0, 1).flatten(1).var(1))
    name = next(n for n, module in twin.named_modules() if module is norm)
    ours = model.get_submodule(name)
    assert isinstance(ours, nn.BatchNorm2d)
    torch.testing.assert_close(ours.running_mean, torch.stack(first["mean"]).mean(0))
    torch.testing.assert_close(ours.running_var, torch.stack(first["var"]).mean(0))
    for (key, weight), before in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, before), key


def test_a_run_measures_after_it_and_the_file_has_it(
    tiny: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stages = {**tiny["stages"], "retrain": {"epochs": 0}}
    results = {}
    for images in (0, 160):
        folder = tmp_path / str(images)
        task = task_of(tiny, folder, stages=stages, batch_norm_images=images)
        run = RunDirectory(folder)
        summary = run_stages(task, task.recipe, run, "test")
        assert summary is not None
        results[images] = summary
    told = [r.getMessage() for r in caplog.records if "batch norm" in r.getMessage()]
    assert told == ["batch norm: statistics estimated anew from 160 training images"]
    assert results[0].dense == results[160].dense
    assert results[0].hard_pruned != results[160].hard_pruned
    assert results[160].final == results[160].hard_pruned  # what was saved is what was measured
    assert results[0].notes == ()
    assert "estimated anew from 160 training images" in results[160].notes[0]
    weights = [torch.load(tmp_path / d / "pruned.pt", weights_only=True) for d in ("0", "160")]
    same = {name: torch.equal(value, weights[1][name]) for name, value in weights[0].items()}
    moved = {name.rpartition(".")[2] for name, equal in same.items() if not equal}
    assert moved == {"running_mean", "running_var", "num_batches_tracked"}
