"""Networks that are drawn at random from layers and operations: whatever is removed changes no output."""

import random
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from channel_checks import check_removal
from torch import Tensor, nn

Step = Callable[["Drawn", list[Tensor]], Tensor]
"""The next result of earlier ones; layers are looked up, for a copy has its own."""

Layer = Callable[[int, int], nn.Module]
"""(channels, other width) → module."""

LAYERS: tuple[Layer, ...] = (
    lambda c, w: nn.Conv2d(c, w, 3, padding=1),
    lambda c, w: nn.Conv2d(c, w, 1, bias=False),
    lambda c, w: nn.ConvTranspose2d(c, w, 3, padding=1),
    lambda c, w: nn.Conv2d(c, c, 3, padding=1, groups=c),
    lambda c, w: nn.Conv2d(c, w, 1, groups=2 if c % 2 == 0 else 1),
    lambda c, w: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
    lambda c, w: nn.BatchNorm2d(c, affine=False),
    lambda c, w: nn.GroupNorm(2 if c % 2 == 0 else 1, c),
    lambda c, w: nn.InstanceNorm2d(c, affine=True),
    lambda c, w: nn.PReLU(c),
)

ALONE: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu,
    torch.sigmoid,
    torch.cos,
    F.silu,
    F.softplus,
    lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    lambda x: F.max_pool2d(x, 3, 1, 1),
    lambda x: x.flip(3),
    lambda x: x[:, 1:],
    lambda x: x.chunk(2, 1)[0],
    lambda x: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1),
    lambda x: x.flatten(2).softmax(-1).view_as(x),
    lambda x: x.permute(0, 2, 3, 1).tanh().permute(0, 3, 1, 2),
    lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)),
    lambda x: (x + 0).add_(1),
    lambda x: (y := x + 0, y.chunk(2, 1)[0].sigmoid_())[0],
    lambda x: (y := x + 0, y.flatten(2).tanh_())[0],
)

PAIRS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    torch.add,
    torch.mul,
    torch.maximum,
    lambda x, y: x.sigmoid() - y.sigmoid(),
    lambda x, y: x / (y.abs() + 1),
    lambda x, y: x * y.mean((2, 3), keepdim=True).sigmoid(),
    lambda x, y: torch.where(y > 0, x, 0.1 * x),
    lambda x, y: torch.cat([x, y], 1),
    lambda x, y: torch.stack([x, y], 2).flatten(1, 2),
)


class Drawn(nn.Module):
    """Applies what it has drawn to earlier results; heads, and a few results as they are, are its outputs."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        results = [torch.randn(2, 3, 6, 6)]
        for _ in range(draw.randint(8, 20)):
            step = self.drawn_step(draw, [result.shape[1] for result in results])
            result = step(self, results)
            if 2 <= result.shape[1] <= 32:
                self.steps.append(step)
                results.append(result)
        read = [len(results) - 1, *draw.sample(range(len(results)), 2)]
        self.heads = nn.ModuleList([nn.Conv2d(results[i].shape[1], 3, 1) for i in read])
        self.read = read
        self.returned = [i for i in range(1, len(results)) if draw.random() < 0.04]

    def drawn_step(self, draw: random.Random, widths: list[int]) -> Step:
        index = draw.randrange(len(widths))
        kind = draw.choice(["layer", "layer", "alone", "pair", "layer once more"])
        if kind == "layer":
            self.layers.append(draw.choice(LAYERS)(widths[index], draw.choice([4, 6, 8, 12])))
            number = len(self.layers) - 1
            return lambda model, results: model.layers[number](results[index])
        if kind == "alone" or widths[index] == 3:
            operation = draw.choice(ALONE)
            return lambda _, results: operation(results[index])
        if kind == "pair":
            other = draw.choice([i for i, width in enumerate(widths) if width == widths[index]])
            both = draw.choice(PAIRS)
            return lambda _, results: both(results[index], results[other])
        inputs = [getattr(layer, "in_channels", 0) for layer in self.layers]
        fitting = [i for i, width in enumerate(inputs) if width == widths[index]]
        if not fitting:
            return lambda _, results: results[index].relu()
        again = draw.choice(fitting)
        return lambda model, results: model.layers[again](results[index])

    def forward(self, x: Tensor) -> list[Tensor]:
        results = [x]
        for step in self.steps:
            results.append(step(self, results))
        outputs = [head(results[i]) for head, i in zip(self.heads, self.read, strict=True)]
        return outputs + [results[i] for i in self.returned]


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_removal_is_exact() -> None:
    shrunk = 0
    for seed in range(60):
        with torch.no_grad():
            model = Drawn(seed)
        plan = check_removal(model, torch.randn(2, 3, 6, 6), tolerance=1e-7)
        shrunk += any(removable for _, removable, _ in plan.values())
    assert shrunk >= 25
