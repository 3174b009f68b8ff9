"""Whole channels of detectors of all families: exact, counted, fused, in half precision, exported, trained."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import FAMILIES, SIZE, noise, shrunk, small_detector
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import detprune as dp

# isort: split
from detprune_yolo.channels import (
    CHANNELS_REMOVED,
    detector_set,
    example,
    lacks_channels,
    mark,
    run_detector,
    smaller_detector,
    state_widths,
)
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint
from detprune_yolo.weights.export import export_onnx

# isort: split
from ultralytics import YOLO
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
from ultralytics.nn.tasks import DetectionModel

REMOVABLE = {"yolov10n": 0.8, "yolo11n": 0.8, "yolo12n": 0.65, "yolo26n": 0.7}


def worst_difference(one: list[dict[str, Tensor]], other: list[dict[str, Tensor]]) -> float:
    """Largest difference, relative to the largest entry of the same output."""
    return max(
        float((a[key] - b[key]).abs().max() / a[key].abs().max())
        for a, b in zip(one, other, strict=True)
        for key in a
    )


def macs_of(call: Callable[[], object]) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shrunk_detector_has_the_same_outputs(family: str) -> None:
    model = small_detector(family)
    small, plan = shrunk(model)
    assert type(small) is DetectionModel
    removable = sum(layer.removable for layer in plan.layers)
    share = removable / sum(layer.channels for layer in plan.layers)
    assert share > REMOVABLE.get(family, 0.8)

    image = example(model, SIZE)
    assert plan.macs == pytest.approx(macs_of(lambda: run_detector(model, image)), abs=1)
    assert plan.macs_left == pytest.approx(macs_of(lambda: run_detector(small, image)), abs=1)
    assert plan.parameters_left == sum(p.numel() for p in small.parameters())
    assert 0.45 < plan.macs_left / plan.macs <= 0.5

    images = noise()
    with torch.no_grad():
        assert worst_difference(run_detector(model, images), run_detector(small, images)) < 1e-5
        for network in (model, small):  # both branches, where there are two
            network.model[-1].training = True
        both = run_detector(model, images), run_detector(small, images)
        assert len(both[0]) == (2 if family in ("yolov10n", "yolo26n") else 1)
        assert worst_difference(*both) < 1e-5
        small.eval()

        expected = small(images)[0]
        for module in small.modules():  # as exports cut
            if isinstance(module, C2f):
                module.forward = module.forward_split  # type: ignore[method-assign]
        assert torch.equal(small(images)[0], expected)
        for module in small.modules():
            vars(module).pop("forward", None)
        fused = copy.deepcopy(small).fuse(verbose=False)
        assert (fused(images)[0] - expected).abs().max() < 1e-4 * expected.abs().max()
        half = copy.deepcopy(fused).half()(images.half())[0].float()
        assert (half[:, :4] - expected[:, :4]).abs().mean() < 0.05 * expected.abs().max()

    small.train()
    batch = {
        "img": images,
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[1.0], [3.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.6, 0.3, 0.5]]),
    }
    small.loss(batch)[0].sum().backward()
    still = {n for n, p in small.named_parameters() if p.requires_grad and p.grad is None}
    assert not still


def test_tracing_leaves_the_detector_as_it_was() -> None:
    for family in ("yolov8n", "yolov10n"):
        model = small_detector(family).train()
        before = copy.deepcopy(model.state_dict())
        kept = {k: v for k, v in vars(model.model[-1]).items() if k != "_modules"}
        parts = list(model.model[-1].named_children())
        bound = detector_set(dp.CoupledChannels(), model, SIZE).bind(model, dp.Budget(macs=0.5))  # type: ignore[attr-defined]
        assert bound.groups.count
        assert {k: v for k, v in vars(model.model[-1]).items() if k != "_modules"} == kept
        assert list(model.model[-1].named_children()) == parts
        assert all(module.training for module in model.modules())
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_head_that_inference_uses_is_what_counts() -> None:
    model = small_detector("yolo26n")
    both = macs_of(lambda: model(noise()))
    one = macs_of(lambda: run_detector(model, noise()))
    fused = macs_of(lambda: copy.deepcopy(model).fuse(verbose=False)(noise()))
    assert one == fused < both
    model.model[-1].end2end = False
    many = macs_of(lambda: run_detector(model, noise()))
    assert many == macs_of(lambda: copy.deepcopy(model).fuse(verbose=False)(noise()))
    assert model.model[-1].one2one_cv2 is not None


def test_the_users_own_inputs_and_forward_are_kept() -> None:
    model = small_detector("yolov8n")
    given = torch.zeros(1, 3, 96, 64)
    chosen: Any = detector_set(dp.CoupledChannels(given, round_to=4), model, SIZE)
    assert chosen.example_inputs is given
    assert chosen.forward is run_detector
    assert chosen.round_to == 4
    other: Any = detector_set(dp.CoupledChannels(forward=print), model, (96, 64))
    assert other.example_inputs.shape == (1, 3, 96, 64)
    assert other.forward is print
    assert detector_set(dp.Unstructured(), model, SIZE) == dp.Unstructured()


# ---------------------------------------------------------------- what modules state


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


# ---------------------------------------------------------------- files


def test_no_network_is_built_from_the_yaml_of_one_that_lacks_channels(tmp_path: Path) -> None:
    model = small_detector("yolov8n")
    layers = copy.deepcopy(model.yaml)
    small, _ = shrunk(model)
    assert model.yaml == layers
    assert not lacks_channels(model)
    assert lacks_channels(small)
    mark(small)
    assert small.yaml["backbone"][1:] == layers["backbone"]
    with pytest.raises(KeyError, match=CHANNELS_REMOVED):
        DetectionModel(small.yaml, nc=6, verbose=False)
    path = tmp_path / "small.pt"
    save_checkpoint(path, pruned_checkpoint(small, None))
    assert lacks_channels(load_model(path))
    assert YOLO(str(path)).info()


def test_the_onnx_file_computes_the_same(tmp_path: Path) -> None:
    model = small_detector("yolo11n")
    small, _ = shrunk(model)
    save_checkpoint(tmp_path / "small.pt", pruned_checkpoint(small, None))
    save_checkpoint(tmp_path / "zeroed.pt", pruned_checkpoint(model, None))
    check = export_onnx(tmp_path / "small.pt", tmp_path / "small.onnx", imgsz=SIZE)
    assert check.max_box_difference < 1e-2
    files = [tmp_path / name for name in ("small.pt", "zeroed.pt")]
    assert files[0].stat().st_size < 0.6 * files[1].stat().st_size


def test_pruning_single_weights_of_a_shrunk_detector() -> None:
    small, _ = shrunk(small_detector("yolov8n"))
    pruner = dp.Pruner(
        small, None, dp.OneShot(), budget=dp.Budget(compression=2, exclude=["*.dfl.*"])
    )
    pruner.hard_prune()
    again, _ = shrunk(small, macs=0.6, round_to=4)
    assert lacks_channels(again)
    assert sum(CHANNELS_REMOVED in row for row in again.yaml["backbone"]) == 1


def test_smaller_detector_needs_a_hard_pruned_one() -> None:
    model = small_detector("yolov5n")
    chosen = detector_set(dp.CoupledChannels(), model, SIZE)
    pruner = dp.Pruner(model, None, dp.OneShot(), chosen, dp.Budget(macs=0.5))
    with pytest.raises(dp.InputError, match="call hard_prune"):
        smaller_detector(pruner)
