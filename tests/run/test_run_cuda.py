"""Whole classification runs on a GPU."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import detprune as call
from detprune.run.directory import RunDirectory

detprune = partial(call, preloaded=None)
pytestmark = pytest.mark.cuda

DIES = """
import os, sys
from detprune.run.directory import RunDirectory
log = RunDirectory.log
def log_and_die(self, event):
    log(self, event)
    if event.event == "epoch" and (event.stage, event.epoch) == ("constrained", 2):
        os.kill(os.getpid(), 9)
RunDirectory.log = log_and_die
from detprune.run.cli.main import main
sys.argv = ["detprune", *sys.argv[1:]]
main()
"""


def on_gpu(tiny: dict[str, Any], folder: Path, **trainer: Any) -> Path:
    tiny["trainer"] = {"progress_bar": False, **trainer}
    tiny["distillation"] = {"weight": 0.5}
    tiny["batch_norm_images"] = 64
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    return path


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", ["slr", "sas_admm", "gradual_magnitude"])
def test_a_run(tiny: dict[str, Any], tmp_path: Path, method: str, precision: str) -> None:
    tiny["method"] = {"name": "slr", "rho": "auto"} if method == "slr" else method
    channels_last = precision != "32-true"
    recipe = on_gpu(tiny, tmp_path, precision=precision, channels_last=channels_last)
    detprune("run", recipe, "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["compression"] == pytest.approx(10, rel=1e-3)
    state = torch.load(tmp_path / "run" / "pruned.pt", weights_only=True)
    assert {value.device.type for value in state.values()} == {"cpu"}
    for layer in summary["layers"]:
        assert int(torch.count_nonzero(state[layer["name"]])) == layer["nonzero"]


def test_the_first_epoch_is_that_of_the_cpu(tiny: dict[str, Any], tmp_path: Path) -> None:
    losses = {}
    for accelerator in ("cpu", "gpu"):
        folder = tmp_path / accelerator
        folder.mkdir()
        detprune("run", on_gpu(tiny, folder, accelerator=accelerator), "--out", folder / "run")
        events = RunDirectory(folder / "run").events()
        losses[accelerator] = [e["train_loss"] for e in events if e["event"] == "epoch"]
    assert losses["gpu"][0] == pytest.approx(losses["cpu"][0], rel=0.01)
    assert losses["gpu"][0] > losses["gpu"][2]  # the dense network learns


def test_killed_and_resumed_gives_the_same_bits(tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe = on_gpu(tiny, tmp_path, precision="bf16-mixed", deterministic=True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    detprune("run", recipe, "--out", whole)
    command = [sys.executable, "-c", DIES, "run", str(recipe), "--out", str(cut)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, env=environment, capture_output=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    detprune("run", recipe, "--out", cut, "--resume")
    expected, found = (
        torch.load(folder / "pruned.pt", weights_only=True) for folder in (whole, cut)
    )
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
