"""What modules of Ultralytics state about their channels, after some were taken out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_detectors import FAMILIES, noise, small_detector
from torch import Tensor, nn

import detprune as dp

# isort: split
from detprune_yolo.channels import state_widths

# isort: split
from ultralytics.nn.modules.block import (
    C2PSA,
    DFL,
    ELAN1,
    PSA,
    SPPELAN,
    AAttn,
    ADown,
    Attention,
    C2f,
    C2fCIB,
    C3k2,
    RepNCSPELAN4,
    RepVGGDW,
)
from ultralytics.nn.modules.conv import Conv, RepConv


class Net(nn.Module):
    """Some layers in a place where Ultralytics' networks have theirs."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(Conv(3, 32, 3), *layers, Conv(32, 8, 1))

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


BLOCKS: list[tuple[Callable[[], nn.Module], dict[str, str]]] = [
    (lambda: C2f(32, 32, 1, True), {"c": "half of cv1"}),
    (lambda: C3k2(32, 32, 1, True), {"c": "half of cv1"}),
    (lambda: C2fCIB(32, 32, 1, True, True), {"c": "half of cv1"}),
    (lambda: RepNCSPELAN4(32, 32, 32, 16, 1), {"c": "half of cv1"}),
    (lambda: ELAN1(32, 32, 32, 16), {"c": "half of cv1"}),
    (lambda: SPPELAN(32, 32, 16), {"c": "cv1"}),
    (lambda: ADown(32, 32), {"c": "cv1"}),
    (lambda: RepConv(32, 32), {"c1": "conv1's inputs", "c2": "conv1"}),
    (lambda: RepConv(32, 32, bn=True), {"c1": "conv1's inputs", "c2": "conv1"}),
    (lambda: RepVGGDW(32), {"dim": "conv"}),
]


def stated(module: Any, what: str) -> int:
    name, _, inputs = what.removeprefix("half of ").partition("'s ")
    convolution = getattr(module, name).conv
    width = convolution.in_channels if inputs else convolution.out_channels
    return int(width) // (2 if what.startswith("half") else 1)


@pytest.mark.parametrize(("make", "attributes"), BLOCKS, ids=lambda x: "")
def test_modules_state_the_channels_that_they_have(
    make: Callable[[], nn.Module], attributes: dict[str, str]
) -> None:
    model: Any = Net(make()).eval()
    images = noise()
    pruner = dp.Pruner(
        model, None, dp.OneShot(), dp.CoupledChannels(images, round_to=1), dp.Budget(macs=0.4)
    )
    pruner.hard_prune()
    small: Any = pruner.shrink()
    state_widths(small)
    block, dense = small.model[1], model.model[1]
    for attribute, what in attributes.items():
        assert getattr(block, attribute) == stated(block, what) < getattr(dense, attribute)
    assert block.np == sum(p.numel() for p in block.parameters())
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(small(images), expected)
        if hasattr(block, "forward_split"):
            block.forward = block.forward_split
            torch.testing.assert_close(small(images), expected)
        if isinstance(block, RepConv | RepVGGDW):
            fuse = block.fuse if isinstance(block, RepVGGDW) else block.fuse_convs
            fuse()
            block.forward = block.forward_fuse
            torch.testing.assert_close(small(images), expected)


_STATING = (C2f, RepNCSPELAN4, SPPELAN, ADown, RepConv, RepVGGDW)  # set by state_widths
_FIXED = (DFL, PSA, C2PSA, Attention, AAttn)  # cut at fixed sizes, so that their channels stay


@pytest.mark.parametrize("family", FAMILIES)
def test_no_module_states_channels_that_nothing_corrects(family: str) -> None:
    for module in small_detector(family).modules():
        own = {"c", "c1", "c2", "c_", "dim", "head_dim", "key_dim", "num_heads"} & vars(
            module
        ).keys()
        assert not own or isinstance(module, (*_STATING, *_FIXED)), type(module)
