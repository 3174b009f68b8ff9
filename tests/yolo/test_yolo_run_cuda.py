"""Whole detection runs on a GPU, with Ultralytics' AMP and without it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_detection_run import wait_for_epochs

from detprune_yolo.weights.checkpoints import load_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

RecipeFile = Callable[[Path, dict[str, Any]], Path]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(recipe: Path, out: Path) -> list[str]:
    arguments = ["run", str(recipe), "--out", str(out), "--resume"]
    return [sys.executable, "-m", "detprune", *arguments]


def run(recipe: Path, out: Path) -> None:
    process = subprocess.run(
        command(recipe, out), capture_output=True, text=True, env=ENVIRONMENT, timeout=280
    )
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]


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
    for stage in ("constrained", "retrain"):
        process = subprocess.Popen(
            command(recipe, cut),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        wait_for_epochs(cut, stage, 2, process)
        process.kill()
        process.wait()
    run(recipe, cut)
    expected, found = (load_model(folder / "pruned.pt").state_dict() for folder in (whole, cut))
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
