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


def ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """Run a recipe that trains in this stage alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = copy.deepcopy(TINY)
    for name, spec in recipe["stages"].items():
        spec["epochs"] = int(name == stage)
    file, out = tmp_path / "recipe.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert detprune_here("run", file, "--out", out, monkeypatch=monkeypatch) == 1
    assert not (out / "summary.json").exists()


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

    monkeypatch.setattr(LaneTask, METHODS[stage], poisoned)
    ends_with_an_error(tmp_path, monkeypatch, stage)
    error = capsys.readouterr().err
    assert f"the network after the stage {stage} holds NaN" in error
    assert "model.conv1.weight" in error


@pytest.mark.parametrize("stage", METHODS)
def test_a_stage_that_diverges_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    """Its validation, or the method, finds NaN before the stage has ended."""

    def diverged(*_: object) -> Any:
        raise dp.NonFiniteError("logits of the lane network are NaN or infinite")

    monkeypatch.setattr(LaneTask, METHODS[stage], diverged)
    ends_with_an_error(tmp_path, monkeypatch, stage)
    assert f"error: in the stage {stage}: logits" in capsys.readouterr().err
