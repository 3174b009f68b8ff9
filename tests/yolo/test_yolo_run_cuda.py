"""Whole detection runs on a GPU, with Ultralytics' AMP and without it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import detprune, kill_after
from detprune_yolo.weights.checkpoints import load_model

pytestmark = pytest.mark.cuda

RecipeFile = Callable[[Path, dict[str, Any]], Path]


def run(recipe: Path, out: Path) -> None:
    detprune("run", recipe, "--out", out, "--resume", preloaded=None)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("method", ["slr", "sas_admm"])
def test_a_run(
    tiny_detector: dict[str, Any], recipe_file: RecipeFile, tmp_path: Path, method: str, amp: bool
) -> None:
    tiny_detector["method"] = {"name": "slr", "rho": "auto"} if method == "slr" else method
    tiny_detector["train"] |= {"device": 0, "amp": amp}
    tiny_detector["distillation"] = {"weight": 0.3}
    run(recipe_file(tmp_path, tiny_detector), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["compression"] == pytest.approx(3.33, abs=0.01)
    state = load_model(tmp_path / "run" / "pruned.pt").state_dict()
    for layer in summary["layers"]:
        assert int(torch.count_nonzero(state[layer["name"]])) == layer["nonzero"]


def test_killed_and_resumed_gives_the_same_bits(
    tiny_detector: dict[str, Any], recipe_file: RecipeFile, tmp_path: Path
) -> None:
    tiny_detector["train"] |= {"device": 0, "amp": True}
    recipe, whole, cut = recipe_file(tmp_path, tiny_detector), tmp_path / "whole", tmp_path / "cut"
    run(recipe, whole)
    arguments = ("run", recipe, "--out", cut, "--resume")
    kill_after(arguments, cut, (("constrained", 2), ("retrain", 2)), preloaded=None)
    run(recipe, cut)
    expected, found = (load_model(folder / "pruned.pt").state_dict() for folder in (whole, cut))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
