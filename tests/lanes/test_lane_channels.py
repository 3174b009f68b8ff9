"""Whole channels of the lane network: every trunk, with the auxiliary branch, and a run."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lane_networks import SIZE
from lane_recipe import TINY

import detprune as dp
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_lanes.export import export
from detprune_lanes.grid import Grid
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.network.trunks import TRUNKS
from detprune_lanes.recipe import LaneRecipe
from detprune_lanes.task import LaneTask


@pytest.mark.slow
@pytest.mark.parametrize("trunk", sorted(set(TRUNKS) - {"101", "152", "101next", "101wide"}))
def test_outputs_stay(trunk: str) -> None:
    torch.manual_seed(0)
    network = LaneNetwork(trunk, Grid(cells=12, rows=8), SIZE, use_aux=True)
    for name, buffer in network.named_buffers():
        if "mean" in name:
            buffer += 0.1 * torch.randn_like(buffer)
    images = torch.randn(2, 3, *SIZE)
    pruner = dp.Pruner(network, None, dp.OneShot(), dp.CoupledChannels(images), dp.Budget(macs=0.5))
    pruner.hard_prune()
    small = pruner.shrink()
    assert isinstance(small, LaneNetwork)
    assert small.cls[0].weight.shape[0] < network.cls[0].weight.shape[0]  # type: ignore[union-attr]
    with torch.no_grad():
        for one, other in zip(network.eval()(images), small.eval()(images), strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-4 * float(one.abs().max()))
        logits = small.without_aux()(images)
        torch.testing.assert_close(logits, small(images)[0])
    small.train()
    sum(output.sum() for output in small(images)).backward()


@pytest.mark.slow
def test_a_run_counts_what_is_deployed(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        **copy.deepcopy(TINY),
        "method": {"name": "admm", "rho": "auto"},
        "set": "coupled_channels",
        "budget": {"macs": 0.5},
        "measure": True,
    }
    recipe = validate(LaneRecipe, values)
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    summary = run_stages(LaneTask(recipe, run), recipe, run, "")
    assert summary is not None
    sizes, removal = summary.measured, summary.removal
    assert sizes is not None
    assert sizes.dense is not None
    assert 0.45 < sizes.pruned.macs / sizes.dense.macs <= 0.5
    assert removal is not None
    assert removal.difference < 1e-5
    network = dp.load(run.pruned)
    assert isinstance(network, LaneNetwork)
    program = torch.export.load(run.path / "pruned.pt2")
    images = torch.randn(3, 3, *network.size)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), network.without_aux()(images))
    lines = export(run.path, None)
    assert any("pruned.onnx" in line for line in lines), json.dumps(lines)
