"""The network: the original's names, shapes, initialisation and outputs, recomputed step by step."""

import copy
import math
import pickle
from collections.abc import Iterator

import pytest
import torch
from lane_networks import GRID, SIZE
from torch import Tensor
from torch.nn import functional as F
from torchvision import models

from detprune.errors import InputError
from detprune_lanes.grid import Grid
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.network.trunks import (
    TRUNKS,
    trunk_channels,
)

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def batch_norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for entry in BN:
        yield f"{name}.{entry}", () if entry == "num_batches_tracked" else (channels,)


def expected_trunk(
    blocks: tuple[int, ...], expansion: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a ResNet of He et al. (CVPR 2016, table 1), as torchvision calls them."""
    yield "model.conv1.weight", (64, 3, 7, 7)
    yield from batch_norm("model.bn1", 64)
    channels = 64
    for stage, count in enumerate(blocks, 1):
        width = 32 * 2**stage
        for block in range(count):
            name = f"model.layer{stage}.{block}"
            kernels = (3, 3) if expansion == 1 else (1, 3, 1)
            incoming = channels
            for number, kernel in enumerate(kernels, 1):
                out = width * expansion if number == len(kernels) else width
                yield f"{name}.conv{number}.weight", (out, incoming, kernel, kernel)
                yield from batch_norm(f"{name}.bn{number}", out)
                incoming = out
            if block == 0 and channels != width * expansion:
                yield f"{name}.downsample.0.weight", (width * expansion, channels, 1, 1)
                yield from batch_norm(f"{name}.downsample.1", width * expansion)
            channels = width * expansion


def expected_auxiliary(expansion: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    convolutions = {
        "aux_header2": [(128, 128 * expansion), (128, 128), (128, 128), (128, 128)],
        "aux_header3": [(128, 256 * expansion), (128, 128), (128, 128)],
        "aux_header4": [(128, 512 * expansion), (128, 128)],
        "aux_combine": [(256, 384), (128, 256), (128, 128), (128, 128)],
    }
    for branch, shapes in convolutions.items():
        for number, (out, incoming) in enumerate(shapes):
            yield f"{branch}.{number}.conv.weight", (out, incoming, 3, 3)
            yield from batch_norm(f"{branch}.{number}.bn", out)
    yield "aux_combine.4.weight", (5, 128, 1, 1)
    yield "aux_combine.4.bias", (5,)


def expected_head(expansion: int) -> dict[str, tuple[int, ...]]:
    return {
        "cls.0.weight": (2048, 1800),
        "cls.0.bias": (2048,),
        "cls.2.weight": (22_624, 2048),
        "cls.2.bias": (22_624,),
        "pool.weight": (8, 512 * expansion, 1, 1),
        "pool.bias": (8,),
    }


def small(use_aux: bool = False, trunk: str = "18") -> LaneNetwork:
    """A network whose outputs depend on all of the image: fresh ones are nearly constant."""
    network = LaneNetwork(trunk, GRID, SIZE, use_aux)
    with torch.no_grad():
        for parameter in network.cls.parameters():
            parameter.mul_(8)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize(
    ("trunk", "blocks", "expansion"), [("18", (2, 2, 2, 2), 1), ("50", (3, 4, 6, 3), 4)]
)
@pytest.mark.parametrize("use_aux", [False, True])
def test_names_order_and_shapes_are_the_originals(
    trunk: str, blocks: tuple[int, ...], expansion: int, use_aux: bool
) -> None:
    with torch.device("meta"):
        state = LaneNetwork(trunk, use_aux=use_aux).state_dict()
    expected = dict(expected_trunk(blocks, expansion))
    expected |= dict(expected_auxiliary(expansion)) if use_aux else {}
    expected |= expected_head(expansion)
    # the order too: states of optimizers number the parameters
    assert [(n, tuple(v.shape)) for n, v in state.items()] == list(expected.items())


@pytest.mark.parametrize(
    ("trunk", "use_aux", "total", "percent"),
    [
        ("18", False, 61_225_640, 75.7),
        ("18", True, 64_621_357, 71.7),
        ("34", False, 71_333_800, 65.0),
        ("50", False, 73_569_448, 63.0),
    ],
)
def test_the_last_layer_holds_most_of_a_small_network(
    trunk: str, use_aux: bool, total: int, percent: float
) -> None:
    with torch.device("meta"):
        network = LaneNetwork(trunk, use_aux=use_aux)
    assert sum(p.numel() for p in network.parameters()) == total
    last = network.get_parameter("cls.2.weight").numel()
    assert last == 2048 * 101 * 56 * 4 == 46_333_952
    assert round(100 * last / total, 1) == percent


@pytest.mark.parametrize("trunk", ["18", "101next"])
def test_features_at_an_eighth_a_sixteenth_and_a_thirty_second(trunk: str) -> None:
    with torch.device("meta"):
        network = LaneNetwork(trunk, use_aux=True)
        maps = network.model(torch.empty(2, 3, 288, 800))
        logits, segmentation = network(torch.empty(2, 3, 288, 800))
    factor = 1 if trunk in ("18", "34") else 4
    assert network.model.channels == (128 * factor, 256 * factor, 512 * factor)
    assert trunk_channels(trunk) == network.model.channels
    assert [tuple(m.shape) for m in maps] == [
        (2, 128 * factor, 36, 100),
        (2, 256 * factor, 18, 50),
        (2, 512 * factor, 9, 25),
    ]
    assert logits.shape == (2, 101, 56, 4)
    assert segmentation.shape == (2, 5, 36, 100)
    assert (network.trunk, network.size, network.grid) == (trunk, (288, 800), Grid())


def reference(network: LaneNetwork, images: Tensor, use_aux: bool) -> tuple[Tensor, Tensor | None]:
    """The outputs from the state dict alone, with torchvision's own network as the trunk."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    trunk = models.get_model(TRUNKS[network.trunk], weights=None).train(network.training).double()
    own = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
    assert trunk.load_state_dict(own, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    maps: dict[int, Tensor] = {}
    for stage in (2, 3, 4):
        trunk.get_submodule(f"layer{stage}").register_forward_hook(
            lambda _module, _inputs, output, stage=stage: maps.update({stage: output})
        )
    trunk(images)

    pooled = F.conv2d(maps[4], state["pool.weight"], state["pool.bias"])
    _, channels, height, width = pooled.shape
    in_order = [
        pooled[:, c, y, x] for c in range(channels) for y in range(height) for x in range(width)
    ]
    hidden = torch.stack(in_order, dim=1) @ state["cls.0.weight"].T + state["cls.0.bias"]
    flat = hidden.clamp(min=0) @ state["cls.2.weight"].T + state["cls.2.bias"]
    logits = torch.empty(len(images), GRID.cells + 1, GRID.rows, GRID.lanes, dtype=flat.dtype)
    for cell in range(GRID.cells + 1):
        for row in range(GRID.rows):
            for lane in range(GRID.lanes):
                place = (cell * GRID.rows + row) * GRID.lanes + lane
                logits[:, cell, row, lane] = flat[:, place]
    if not use_aux:
        return logits, None

    def block(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        x = F.conv2d(x, state[f"{name}.conv.weight"], padding=dilation, dilation=dilation)
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        if network.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        scale = state[f"{name}.bn.weight"] / (variance + 1e-5).sqrt()
        shift = state[f"{name}.bn.bias"] - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).clamp(min=0)

    branches = []
    for stage, layers in ((2, 4), (3, 3), (4, 2)):
        x = maps[stage]
        for layer in range(layers):
            x = block(f"aux_header{stage}.{layer}", x)
        eighth = [SIZE[0] // 8, SIZE[1] // 8]
        branches.append(F.interpolate(x, size=eighth, mode="bilinear", align_corners=False))
    x = torch.cat(branches, dim=1)
    for layer, dilation in enumerate((2, 2, 2, 4)):
        x = block(f"aux_combine.{layer}", x, dilation)
    return logits, F.conv2d(x, state["aux_combine.4.weight"], state["aux_combine.4.bias"])


@pytest.mark.parametrize(
    ("trunk", "use_aux", "training", "channels_last"),
    [
        ("18", False, False, False),
        ("18", True, False, True),
        ("18", True, True, False),
        ("18", True, True, True),
        pytest.param("50", True, False, False, marks=pytest.mark.slow),
    ],
)
def test_outputs(trunk: str, use_aux: bool, training: bool, channels_last: bool) -> None:
    network = small(use_aux, trunk).train(training).double()
    images = torch.randn(3, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected, expected_segmentation = reference(network, images, use_aux)
        if channels_last:
            network = network.to(memory_format=torch.channels_last)
            images = images.to(memory_format=torch.channels_last)
        output = network(images)
    logits = output[0] if use_aux else output
    assert expected.std(dim=0).mean() > 1e-3  # images differ
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    if use_aux:
        torch.testing.assert_close(output[1], expected_segmentation, rtol=1e-9, atol=1e-9)


def test_initialisation_is_the_originals() -> None:
    torch.manual_seed(5)
    network = LaneNetwork("18", GRID, SIZE, use_aux=True)
    torch.manual_seed(5)
    trunk = models.resnet18(weights=None)
    for name, value in network.model.state_dict().items():
        assert torch.equal(value, trunk.state_dict()[name]), name
    fan_in_deviation = {  # He et al., ICCV 2015: √(2 / fan in)
        "aux_header2.0.conv.weight": math.sqrt(2 / (128 * 9)),
        "aux_header4.0.conv.weight": math.sqrt(2 / (512 * 9)),
        "aux_combine.0.conv.weight": math.sqrt(2 / (384 * 9)),
        "aux_combine.3.conv.weight": math.sqrt(2 / (128 * 9)),
        "cls.0.weight": 0.01,
        "cls.2.weight": 0.01,
    }
    for name, deviation in fan_in_deviation.items():
        weight = network.get_parameter(name).detach()
        assert float(weight.std()) == pytest.approx(deviation, rel=0.02), name
        assert abs(float(weight.mean())) < 0.05 * deviation
        assert float(weight.abs().max()) > 3 * deviation  # normal, not uniform
    last = network.get_parameter("aux_combine.4.weight").detach()
    assert float(last.std()) == pytest.approx(math.sqrt(2 / 128), rel=0.1)
    assert not network.get_parameter("aux_combine.4.bias").any()
    # torch's own for the rest: uniform within 1/√(fan in)
    for name, fan_in in (("pool.weight", 512), ("cls.0.bias", 48), ("cls.2.bias", 2048)):
        value, bound = network.get_parameter(name).detach(), 1 / math.sqrt(fan_in)
        assert float(value.abs().max()) <= bound
        assert float(value.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05), name


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))])
def test_copies_and_pickles(duplicate) -> None:
    network = small(use_aux=True).eval()
    other = duplicate(network)
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        for mine, its in zip(network(images), other(images), strict=True):
            assert torch.equal(mine, its)
    assert (other.grid, other.size, other.trunk) == (GRID, SIZE, "18")


def test_the_deployed_copy_computes_the_same_without_the_auxiliary_branch() -> None:
    network = small(use_aux=True)
    names = set(network.state_dict())
    random_state = torch.get_rng_state()
    deployed = network.without_aux()
    assert torch.equal(torch.get_rng_state(), random_state)
    assert network.training
    assert set(network.state_dict()) == names
    assert not deployed.training
    assert set(deployed.state_dict()) == {n for n in names if not n.startswith("aux_")}
    images = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(deployed(images), network.eval()(images)[0])
    deployed.get_parameter("pool.weight").data.zero_()
    assert network.get_parameter("pool.weight").any()
    again = deployed.without_aux()
    assert again is not deployed
    assert set(again.state_dict()) == set(deployed.state_dict())


@pytest.mark.parametrize(
    ("size", "text"),
    [
        ((300, 800), r"\(288, 800\) or \(320, 800\)"),
        ((287, 801), r"\(256, 800\) or \(288, 832\)"),
        ((10, 800), r"multiples of 32: \(32, 800\)$"),
        ((288,), r"size is \(288,\); give height and width"),
        (288, "size is 288; give height and width"),
        ((0, 800), r"size is \(0, 800\); give"),
        ((288.0, 800.0), "give height and width in pixels"),
    ],
)
def test_sizes_that_are_refused(size, text: str) -> None:
    with pytest.raises(InputError, match=text), torch.device("meta"):
        LaneNetwork(size=size)


def test_a_trunk_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match=r"unknown trunk '50nxt' \(did you mean '50next'\?\)"):
        LaneNetwork("50nxt")
    with pytest.raises(InputError, match=r"unknown trunk 'vgg'; known: 101, .*, 50wide$"):
        trunk_channels("vgg")
    with torch.device("meta"):
        assert LaneNetwork(34).trunk == "34"  # as YAML reads it


def test_images_of_another_size_are_refused() -> None:
    with torch.device("meta"):
        network = LaneNetwork("18", GRID, SIZE)
        for shape in ((1, 3, 96, 64), (1, 1, 64, 96), (3, 64, 96)):
            with pytest.raises(InputError, match=r"this network takes \(N, 3, 64, 96\)"):
                network(torch.empty(shape))
