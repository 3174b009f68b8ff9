"""A detector whose weights become NaN: the run ends with the stage's name, and no summary."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detection_recipe import TINY

from command_line import detprune_here
from detprune import NonFiniteError
from detprune.methods import OneShot
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.recipe import validate
from detprune_yolo.recipe import DetectionRecipe
from detprune_yolo.task import DetectionTask

pytestmark = pytest.mark.slow

METHODS = {"dense": "train_dense", "constrained": "train_constrained", "retrain": "retrain"}


@pytest.mark.parametrize("stage", METHODS)
def test_a_stage_that_ends_with_nan_ends_the_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    trained = getattr(DetectionTask, METHODS[stage])

    def poisoned(task: DetectionTask, model: Any, *more: Any) -> Any:
        result = trained(task, model, *more)
        with torch.no_grad():
            model.model[0].conv.weight[0, 0, 0, 0] = float("nan")
        return result

    monkeypatch.setattr(DetectionTask, METHODS[stage], poisoned)
    recipe = copy.deepcopy(TINY)
    for name, spec in recipe["stages"].items():
        spec["epochs"] = int(name == stage)
    recipe["train"]["warmup_epochs"] = 0
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert detprune_here("run", file, "--out", out, monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert f"after the stage {stage}" in error
    assert "model.0.conv.weight" in error
    assert not (out / "summary.json").exists()


def test_a_file_of_nan_is_refused_with_the_stage(tmp_path: Path) -> None:
    task = DetectionTask(validate(DetectionRecipe, copy.deepcopy(TINY)), RunDirectory(tmp_path))
    model = task.build_model()
    pruner = Pruner(model, None, OneShot(), task.recipe.set, task.budget(model))
    with torch.no_grad():
        model.model[0].conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"after the stage retrain: model\.0\.conv\.weight"):
        task.pruned_file(model, pruner)
    with pytest.raises(
        NonFiniteError, match=r"the network that it starts with: model\.0\.conv\.weight"
    ):
        task._start("constrained", model, None)
