"""Whole channels of detectors of all families: exact, counted, fused, in half precision, exported, trained."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import FAMILIES, SIZE, noise, shrunk, small_detector
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import detprune as dp

# isort: split
from detprune_yolo.channels import (
    detector_set,
    example,
    lacks_channels,
    mark,
    run_detector,
    smaller_detector,
)
from detprune_yolo.descriptions import CHANNELS_REMOVED
from detprune_yolo.export.onnx import export_onnx
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics import YOLO
from ultralytics.nn.modules.block import (
    C2f,
)
from ultralytics.nn.tasks import DetectionModel

pytestmark = pytest.mark.slow

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
    assert files[0].stat().st_size < files[1].stat().st_size


def test_a_loop_of_your_own() -> None:
    import detprune_yolo

    model = small_detector("yolov8n").to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    chosen = dp.CoupledChannels(noise(), forward=detprune_yolo.run_detector)
    pruner = dp.Pruner(model, optimizer, dp.ADMM(rho=0.1), chosen, dp.Budget(macs=0.5))
    batch = {
        "img": noise(),
        "batch_idx": torch.zeros(1),
        "cls": torch.ones(1, 1),
        "bboxes": torch.full((1, 4), 0.5),
    }
    for _ in range(2):
        model.train().loss(batch)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.update()
    pruner.hard_prune()
    small = detprune_yolo.smaller_detector(pruner)
    new = torch.optim.SGD(small.parameters(), lr=0.01, momentum=0.9)
    pruner.carry_over(new, small)
    states = [state["momentum_buffer"].shape for state in new.state.values()]
    assert states == [p.shape for p in small.parameters() if p in new.state]
    with torch.no_grad():
        pair = run_detector(model.eval(), noise()), run_detector(small.eval(), noise())
    assert worst_difference(*pair) < 1e-5


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
