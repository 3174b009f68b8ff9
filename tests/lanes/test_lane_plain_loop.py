"""For somebody with a checkout of the original: the lines of docs/guides/lanes.md in a loop like its ``train.py``."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import detprune as dp
from detprune_lanes.grid import Grid
from detprune_lanes.losses import LaneLoss
from detprune_lanes.network.checkpoints import load_checkpoint
from detprune_lanes.network.model import LaneNetwork

pytestmark = pytest.mark.slow

GRID = Grid(cells=10, rows=6)


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    return [
        (
            torch.randn(4, 3, 32, 64),
            torch.randint(GRID.cells + 1, (4, GRID.rows, GRID.lanes)),
            torch.randint(GRID.lanes + 1, (4, 4, 8)),
        )
        for _ in range(3)
    ]


def train(net: LaneNetwork, optimizer: torch.optim.Optimizer, pruner: dp.Pruner) -> None:
    """An epoch of the original's loop; only the line with ``observe`` is new."""
    net.train()
    for images, cls_label, seg_label in batches():
        cls_out, seg_out = net(images)
        loss = LaneLoss()(cls_out, cls_label, seg_out, seg_label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.observe(loss)


def test_the_originals_loop_prunes_and_saves_what_the_original_loads(tmp_path: Path) -> None:
    net = LaneNetwork("18", GRID, (32, 64), use_aux=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-4, weight_decay=1e-4)
    pruner = dp.Pruner(
        net, optimizer, dp.SLR(rho=0.1), budget=dp.Budget(compression=12.1, exclude=["aux_*"])
    )
    for _ in range(2):
        train(net, optimizer, pruner)
        pruner.update()
    pruner.hard_prune()
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-4, weight_decay=1e-4)
    pruner.attach(optimizer)
    before = net.cls[2].weight.detach().clone()
    train(net, optimizer, pruner)
    assert pruner.summary().compression > 12.09
    assert not torch.equal(before, net.cls[2].weight)
    torch.save(
        {"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "ep001.pth"
    )

    deployed = LaneNetwork("18", GRID, (32, 64))
    load_checkpoint(deployed, tmp_path / "ep001.pth")
    weights = dict(deployed.named_parameters())
    masks = pruner.masks or {}
    assert not any(name.startswith("aux_") for name in masks)
    assert {"cls.0.weight", "cls.2.weight", "pool.weight", "model.conv1.weight"} <= masks.keys()
    for name, mask in masks.items():
        assert not torch.count_nonzero(weights[name].detach()[~mask])
