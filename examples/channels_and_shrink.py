"""Halves a small residual network by whole channels, takes them out, trains what is left, and times both.

python examples/channels_and_shrink.py
"""

import copy
import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import detprune as dp


class Block(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def train(model: nn.Module, epochs: int, pruner: dp.Pruner | None = None) -> None:
    """The loop that you have; the lines about the pruner are all that is new."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if pruner is not None:
        pruner.attach(optimizer)
    model.train()
    for _ in range(epochs):
        for step, batch in enumerate(torch.randperm(len(train_x)).split(32), start=1):
            loss = nn.functional.cross_entropy(model(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pruner is not None:
                pruner.observe(loss)
                if step % STEPS == 0:
                    pruner.update()


def accuracy(model: nn.Module) -> str:
    """On the images that training never sees."""
    model.eval()
    with torch.no_grad():
        return f"{(model(test_x).argmax(1) == test_y).float().mean():.1%}"


@torch.no_grad()
def milliseconds(model: nn.Module) -> float:
    """Median of calls with 64 images."""
    model.eval()
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        model(test_x[:64])
        taken.append(1000 * (time.perf_counter() - began))
    return sorted(taken)[len(taken) // 2]


torch.manual_seed(0)
found = load_digits()
order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
x, y = (
    torch.tensor(found.images, dtype=torch.float32)[order, None] / 16,
    torch.tensor(found.target)[order],
)
train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]

model = nn.Sequential(
    *(nn.Conv2d(1, 48, 3, padding=1, bias=False), nn.BatchNorm2d(48), nn.ReLU()),
    *(Block(48), Block(48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10)),
)
train(model, epochs=4)
dense = copy.deepcopy(model)
print("dense:", accuracy(model))

STEPS = 11  # optimizer steps in an outer iteration: four iterations an epoch
pruner = dp.Pruner(
    model,
    None,  # train() binds it to its optimizer
    dp.ADMM(rho=dp.Pull(2, 4), free_support=True, ramp=0.75),
    dp.CoupledChannels(example_inputs=(x[:1],), round_to=8),
    dp.Budget(macs=0.5),
    steps_per_update=STEPS,
    updates=4 * 4,
)
train(model, epochs=4, pruner=pruner)
pruner.hard_prune()
print("half of the MACs pruned:", accuracy(model))

small = pruner.shrink()  # plain modules with fewer channels
print("the small network:", accuracy(small))
train(small, epochs=3)
print("trained on:", accuracy(small))

before, after = (sum(p.numel() for p in network.parameters()) for network in (dense, small))
print(f"parameters: {before:,} before, {after:,} after")
print(
    f"milliseconds for 64 images: {milliseconds(dense):.1f} before, {milliseconds(small):.1f} after"
)
