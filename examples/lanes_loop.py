"""Prunes an Ultra-Fast-Lane-Detection network in a plain PyTorch loop, on a few drawn roads; too short to be of use.

    python examples/lanes_loop.py

The loop is that of the original repository: its network, its data and its loss take the places of those here.
"""

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import detprune as dp
from detprune_lanes.data.frames import LaneFrames
from detprune_lanes.data.labels import read_labels
from detprune_lanes.data.roads.drawn import DrawnRoads, cached
from detprune_lanes.grid import Grid
from detprune_lanes.losses import LaneLoss
from detprune_lanes.module import found_lanes, logits_of, score_frames
from detprune_lanes.network.model import LaneNetwork

SIZE, GRID = (64, 160), Grid(cells=40, rows=14)


def train(
    model: LaneNetwork,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    pruner: dp.Pruner | None = None,
) -> None:
    """The loop that you have; the lines about the pruner are all that is new."""
    loss_of = LaneLoss()
    model.train()
    for _ in range(epochs):
        for images, target in DataLoader(training, batch_size=8, shuffle=True, drop_last=True):
            loss = loss_of(logits_of(model, images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pruner is not None:
                pruner.observe(loss)
        if pruner is not None:
            pruner.update()


@torch.no_grad()
def accuracy(model: LaneNetwork) -> str:
    """TuSimple's, on the test frames."""
    model.eval()
    images: Tensor = torch.stack([test[number][0] for number in range(len(test))])
    lanes = found_lanes(logits_of(model, images), GRID, test.frames)
    return f"{score_frames(lanes, test.frames).accuracy:.1%}"


torch.manual_seed(0)
root = cached(DrawnRoads(train=32, test=12))
training = LaneFrames(read_labels(sorted(root.glob("label_data_*.json")), root), GRID, SIZE)
test = LaneFrames(read_labels([root / "test_label.json"], root), GRID, SIZE)

model = LaneNetwork("18", GRID, SIZE, use_aux=False)
train(model, torch.optim.Adam(model.parameters(), lr=0.001), epochs=3)
print("dense:", accuracy(model))

optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
pruner = dp.Pruner(
    model,
    optimizer,
    dp.SLR(rho="auto"),
    budget=dp.Budget(compression=10, allocation="erk"),
    steps_per_update=len(training) // 8,
    updates=3,
)
train(model, optimizer, epochs=3, pruner=pruner)
pruner.hard_prune()
print("pruned 10×:", accuracy(model))
train(model, optimizer, epochs=1)  # masked weights stay zero
print("retrained:", accuracy(model))
print(pruner.summary())
