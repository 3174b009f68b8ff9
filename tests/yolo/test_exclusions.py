"""What detectors leave dense by default, for the heads of several generations."""

import pytest
import torch

import detprune as dp

# isort: split
from detprune_yolo.exclusions import detector_budget, merged_branches, merged_note

# isort: split
from ultralytics.nn.tasks import DetectionModel, yaml_model_load


def model_of(cfg: str, **changes: float) -> DetectionModel:
    return DetectionModel({**yaml_model_load(cfg), **changes}, nc=80, verbose=False)


@pytest.mark.parametrize(
    ("cfg", "width", "scales"),
    [
        ("yolov3-tiny.yaml", {"width_multiple": 0.25}, 2),
        ("yolov3-spp.yaml", {"width_multiple": 0.125}, 3),
        ("yolov3.yaml", {"width_multiple": 0.125}, 3),
        ("yolov8n.yaml", {}, 3),
    ],
)
def test_first_and_last_convolutions_and_dfl_are_left_dense(
    cfg: str, width: dict[str, float], scales: int
) -> None:
    model = model_of(cfg, **width)
    head = len(model.model) - 1
    budget = detector_budget(dp.Budget(compression=2), model)
    assert set(budget.exclude) == {
        "model.0.conv.weight",
        f"model.{head}.dfl.conv.weight",
        *(f"model.{head}.cv{branch}.{i}.2.weight" for branch in (2, 3) for i in range(scales)),
    }


@pytest.mark.parametrize(
    ("cfg", "kind"),
    [("yolov9t.yaml", "RepConv"), ("yolov10n.yaml", "RepVGGDW"), ("yolo26n.yaml", None)],
)
def test_every_pruned_zero_outlives_fusing(cfg: str, kind: str | None) -> None:
    model = model_of(cfg)
    asked = dp.Budget(compression=4)
    note = merged_note(asked, model)
    assert (note is None) == (kind is None)
    pruner = dp.Pruner(model, None, dp.OneShot(), budget=detector_budget(asked, model))
    pruner.hard_prune()
    masks = pruner.masks or {}
    fused = dict(model.eval().fuse(verbose=False).named_parameters())
    # of a head's two branches fusing keeps one
    head = f"model.{len(model.model) - 1}."
    masks = {n: mask for n, mask in masks.items() if n in fused or not n.startswith(head)}
    for name, mask in masks.items():
        assert not torch.count_nonzero(fused[name].detach()[~mask]), name


def test_who_names_a_merged_branch_is_told() -> None:
    model = model_of("yolov9t.yaml")
    (name, *_) = merged_branches(model)
    asked = dp.Budget(compression=2, include=[name])
    assert "their zeros vanish there" in str(merged_note(asked, model))
    assert merged_note(dp.Budget(compression=2, include=["model.0.*"]), model) is None


def test_both_heads_of_an_end_to_end_detector_count() -> None:
    model = model_of("yolov10n.yaml")
    exclude = detector_budget(dp.Budget(compression=2), model).exclude
    assert "model.23.cv3.0.2.weight" in exclude
    assert "model.23.one2one_cv3.0.2.weight" in exclude


def test_full_width_counts_are_those_of_the_field() -> None:
    model = model_of("yolov3-tiny.yaml")
    budget = detector_budget(dp.Budget(compression=2), model)
    pruner = dp.Pruner(model, None, dp.OneShot(), budget=budget)
    summary = pruner.summary()
    assert summary.model_numel - 16 == 12_173_248 - 16  # 16 are DFL's, which is no weight
    assert summary.numel == 8_649_216 + 516_096 + 2_949_120


def test_frozen_layers_are_left_dense() -> None:
    model = model_of("yolov3-tiny.yaml", width_multiple=0.0625)
    first_ten = detector_budget(dp.Budget(compression=2), model, freeze=10).exclude
    assert "model.8.conv.weight" in first_ten
    assert "model.10.conv.weight" not in first_ten
    named = detector_budget(dp.Budget(compression=2), model, freeze=[13, "20.cv2"]).exclude
    assert "model.13.conv.weight" in named
    assert "model.20.cv2.0.0.conv.weight" in named
    assert "model.20.cv3.0.0.conv.weight" not in named


def test_who_names_the_weights_gets_those() -> None:
    model = model_of("yolov3-tiny.yaml", width_multiple=0.0625)
    budget = dp.Budget(compression=2, include=["model.0.*"])
    assert detector_budget(budget, model) == budget
