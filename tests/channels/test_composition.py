"""A small network is an ordinary one: it is copied, pickled, trained, and pruned again."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import detprune as dp


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.two, self.head = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(32, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.one(images)))
        logits: torch.Tensor = self.head((x + torch.relu(self.two(x))).mean((2, 3)))
        return logits


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small() -> nn.Module:
    torch.manual_seed(0)
    pruner = dp.Pruner(Block(), None, dp.OneShot(), dp.CoupledChannels(IMAGES), dp.Budget(macs=0.5))
    pruner.hard_prune()
    return pruner.shrink().eval()


def test_copies_and_pickles(small: nn.Module) -> None:
    with torch.no_grad():
        expected = small(IMAGES)
        assert torch.equal(copy.deepcopy(small)(IMAGES), expected)
        assert torch.equal(pickle.loads(pickle.dumps(small))(IMAGES), expected)


def test_fuses(small: nn.Module) -> None:
    fused = copy.deepcopy(small)
    fused.one, fused.norm = fuse_conv_bn_eval(fused.one, fused.norm), nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(fused(IMAGES), small(IMAGES))


@pytest.mark.parametrize(
    ("chosen", "budget"),
    [
        (dp.Unstructured(), dp.Budget(compression=4)),
        (dp.NM(2, 4), dp.Budget(exclude=["one"])),
        (dp.CoupledChannels(IMAGES), dp.Budget(macs=0.5)),
    ],
)
def test_is_pruned_again(small: nn.Module, chosen: dp.SparsitySet, budget: dp.Budget) -> None:
    small.train()
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1, momentum=0.9)
    pruner = dp.Pruner(
        small, optimizer, dp.ADMM(rho="auto"), chosen, budget, steps_per_update=2, updates=2
    )
    for _ in range(2):
        for _ in range(2):
            loss = small(IMAGES).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pruner.observe(loss)
        pruner.update()
    pruner.hard_prune()
    assert pruner.summary().sparsity > 0.2
    if isinstance(chosen, dp.CoupledChannels):
        with torch.no_grad():
            torch.testing.assert_close(pruner.shrink().eval()(IMAGES), small.eval()(IMAGES))
