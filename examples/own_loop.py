"""Prunes a small network on handwritten digits in a plain PyTorch loop: a tenth of its weights is left.

python examples/own_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import detprune as dp


def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) from 0 to 1, in a fixed random order, and their labels."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images[order], torch.tensor(found.target)[order]


def network() -> nn.Sequential:
    """Two convolutions and two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int, pruner: dp.Pruner | None = None
) -> None:
    """The loop that you have; the lines about the pruner are all that is new."""
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(train_x)).split(32):
            loss = nn.functional.cross_entropy(model(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if pruner is not None:
                pruner.observe(loss)
        if pruner is not None:
            pruner.update()


def accuracy(model: nn.Module) -> str:
    """On the images that training never sees."""
    model.eval()
    with torch.no_grad():
        return f"{(model(test_x).argmax(1) == test_y).float().mean():.1%}"


torch.manual_seed(0)
x, y = digits()
train_x, train_y, test_x, test_y = x[:1400], y[:1400], x[1400:], y[1400:]
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
train(model, optimizer, epochs=5)
print("dense:", accuracy(model))

epochs, steps = 8, -(-len(train_x) // 32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
pruner = dp.Pruner(
    model,
    optimizer,
    dp.ADMM(rho="auto"),
    budget=dp.Budget(compression=10),
    steps_per_update=steps,
    updates=epochs,
)
train(model, optimizer, epochs, pruner)
pruner.hard_prune()
print("pruned 10×:", accuracy(model))

train(model, optimizer, epochs=2)  # masked weights stay zero
print("retrained:", accuracy(model))
print(pruner.summary())
