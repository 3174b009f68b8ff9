"""A lane network whose weights become NaN: the run ends with the stage's name, and no summary."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lane_recipe import TINY

import detprune as dp
from command_line import detprune_here
from detprune_lanes.task import LaneTask

METHODS = {"dense": "train_dense", "constrained": "train_constrained", "retrain": "retrain"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", METHODS)
def test_a_stage_that_ends_with_nan_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    trained = getattr(LaneTask, METHODS[stage])

    def poisoned(task: LaneTask, model: Any, *more: Any) -> Any:
        result = trained(task, model, *more)
        with torch.no_grad():
            dict(model.named_parameters())["model.conv1.weight"].view(-1)[0] = float("nan")
        return result

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(LaneTask, METHODS[stage], poisoned)
    recipe = copy.deepcopy(TINY)
    for name, spec in recipe["stages"].items():
        spec["epochs"] = int(name == stage)
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert detprune_here("run", file, "--out", out, monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert f"the network after the stage {stage} holds NaN" in error
    assert "model.conv1.weight" in error
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize("stage", METHODS)
def test_a_stage_that_diverges_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """Its validation, or the method, finds NaN before the stage has ended."""

    def diverged(*_: object) -> Any:
        raise dp.NonFiniteError("logits of the lane network are NaN or infinite")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(LaneTask, METHODS[stage], diverged)
    recipe = copy.deepcopy(TINY)
    for name, spec in recipe["stages"].items():
        spec["epochs"] = int(name == stage)
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert detprune_here("run", file, "--out", out, monkeypatch=monkeypatch) == 1
    assert f"error: in the stage {stage}: logits" in capsys.readouterr().err
    assert not (out / "summary.json").exists()
