"""Trunks told apart by their shapes, and torchvision's weights for them."""

import copy
from pathlib import Path

import pytest
import torch
from lane_networks import hollow, network
from torchvision import models

from detprune.errors import InputError
from detprune_lanes.network.trunks import TRUNKS, Trunk, load_imagenet, trunks_of


@pytest.mark.parametrize("trunk", TRUNKS)
def test_trunks_are_told_apart_by_their_shapes(trunk: str) -> None:
    with torch.device("meta"):
        shapes = {n: v.shape for n, v in Trunk(trunk).state_dict().items()}
    assert trunks_of(shapes) == (trunk,)
    del shapes["layer3.0.conv1.weight"]
    assert trunks_of(shapes) == ()


@pytest.mark.parametrize("counters", [True, False])
def test_a_file_of_torchvision_starts_the_trunk(tmp_path: Path, counters: bool) -> None:
    state = models.resnet18(weights=None).state_dict()
    for name, value in state.items():
        if name.endswith("running_mean"):
            value.normal_()
    if not counters:  # files from before torch 0.4.1
        state = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18.pth")
    model = network()
    head = model.get_parameter("cls.2.weight").clone()
    load_imagenet(model.model, tmp_path / "resnet18.pth")
    for name, value in model.model.state_dict().items():
        if name in state:
            assert torch.equal(value, state[name]), name
    assert torch.equal(model.get_parameter("cls.2.weight"), head)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: models.resnet34(weights=None).state_dict(), "of resnet34, the trunk '34'; give"),
        (lambda: hollow(), "of a whole lane network"),
        (lambda: {"layer1.weight": torch.zeros(2)}, "of no residual network of torchvision"),
        (lambda: {"model": models.resnet18(weights=None).state_dict()}, "no plain state dict"),
        (lambda: [1], "no plain state dict; give torchvision's file of weights for resnet18"),
    ],
)
def test_other_files_do_not_start_the_trunk(tmp_path: Path, content, text: str) -> None:
    torch.save(content(), tmp_path / "w.pth")
    trunk = Trunk("18")
    before = copy.deepcopy(trunk.state_dict())
    with pytest.raises(InputError, match=text):
        load_imagenet(trunk, tmp_path / "w.pth")
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_no_file_of_torchvision(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no file .*nothing is downloaded; give torchvision's file"
    ):
        load_imagenet(Trunk("18"), tmp_path / "none.pth")
