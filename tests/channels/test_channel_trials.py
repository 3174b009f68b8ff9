"""What the run of a network does not show of its channels is found by taking some out as a trial."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import detprune as dp
from detprune.channels import CoupledChannels


class BorrowedSize(nn.Module):
    """Views one tensor in the sizes of another, as attention blocks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 1)
        self.other = nn.Conv2d(16, 24, 1)
        self.last = nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        n, channels, height, width = x.shape
        values = self.inner(x).flatten(2).transpose(1, 2).softmax(2).transpose(1, 2)
        values = values.reshape(n, channels, height, width)
        return self.last(self.other(values).relu())


class Chunks(nn.Module):
    """Two convolutions whose outputs are cut into halves: ties whose numbers would have gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 16, 1) for c in (3, 16, 16, 16))
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for number, conv in enumerate(self.convs):
            x = conv(x).relu()
            if number in (0, 2):
                one, other = x.chunk(2, 1)
                x = torch.cat([one, other.sigmoid() * other], 1)
        return self.last(x)


@pytest.mark.parametrize("make", [BorrowedSize, Chunks])
def test_the_shrunk_network_has_the_same_outputs(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, images = make().eval(), torch.rand(2, 3, 8, 8)
    chosen = CoupledChannels(images, round_to=1)
    pruner = dp.Pruner(model, None, dp.OneShot(), chosen, dp.Budget(macs=0.7))
    pruner.hard_prune()
    small = pruner.shrink()
    torch.testing.assert_close(small(images), model(images))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_channels_on_whose_number_something_depends_stay_with_that_reason() -> None:
    torch.manual_seed(0)
    plan = CoupledChannels(torch.rand(2, 3, 8, 8), round_to=1).plan(BorrowedSize().eval())
    reasons = {layer.name: dict(layer.reasons) for layer in plan.layers}
    assert reasons["first.weight"] == {"has a size that something else depends on": 16}
    assert not reasons["other.weight"]


def test_the_module_that_fails_is_searched_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(40)), BorrowedSize()).eval()
    runs = []

    def forward(network: nn.Module, images: Tensor) -> Tensor:
        runs.append(1)
        output: Tensor = network(images)
        return output

    channels = CoupledChannels(torch.rand(2, 3, 8, 8), round_to=1, forward=forward)
    plan = channels.plan(model)
    reasons = {layer.name: dict(layer.reasons) for layer in plan.layers}
    assert reasons["40.first.weight"] == {"has a size that something else depends on": 16}
    assert not reasons["20.weight"]
    assert len(runs) < 20  # halving 42 families takes more


IMPORTED = """
import sys, torch, detprune as dp
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
dp.CoupledChannels(torch.rand(1, 3, 8, 8), round_to=1).plan(model)
print(sorted({"torch._dynamo", "torch._inductor"} & set(sys.modules)))
"""


def test_the_analysis_imports_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"  # four seconds


def test_sparsities_are_shares_of_the_entries_that_go() -> None:
    torch.manual_seed(0)
    model = Chunks().eval()
    bound = CoupledChannels(torch.rand(2, 3, 8, 8), round_to=1).bind(model, dp.Budget(sparsity=0.5))
    weights = [model.get_parameter(name).detach() for name in bound.names]
    masks = bound.supports(weights, [])
    for number, mask in enumerate(masks):
        assert bound.sparsity(number) == pytest.approx(1 - float(mask.float().mean()))
