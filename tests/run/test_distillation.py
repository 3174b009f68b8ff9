"""Distillation: the loss, who teaches, and that a resumed run has the same teacher."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from detprune import InputError
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask
from detprune_lightning.distillation import Distillation, Teacher


def task_of(recipe: dict[str, Any], folder: Path, **changes: Any) -> ClassificationTask:
    parsed = validate(ClassificationRecipe, {**recipe, **changes})
    return ClassificationTask(parsed, RunDirectory(folder))


def test_the_divergence_is_that_of_the_softmax_at_a_temperature() -> None:
    own, taught = torch.randn(3, 5, 2, 4), torch.randn(3, 5, 2, 4)
    expected = 0.0
    for n in range(3):
        for y in range(2):
            for x in range(4):
                p = torch.exp(taught[n, :, y, x] / 2.5)
                q = torch.exp(own[n, :, y, x] / 2.5)
                p, q = p / p.sum(), q / q.sum()
                expected += float((p * (p / q).log()).sum())
    found = Distillation(temperature=2.5).divergence(own, taught)
    assert float(found) == pytest.approx(2.5**2 * expected / 24, rel=1e-4)
    assert float(Distillation().divergence(own, own)) == pytest.approx(0, abs=1e-5)


def test_a_teacher_mixes_and_stays_what_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    images, student = torch.randn(6, 1, 3, 3), torch.randn(6, 3, requires_grad=True)
    spec = Distillation(weight=0.25, temperature=2)
    teacher = Teacher(network, spec)
    expected = spec.divergence(student, network.eval()(images))
    with torch.no_grad():
        network[3].weight.zero_()  # what the pruned network becomes does not reach the teacher
    loss = teacher.mix(torch.tensor(2.0), student, images)
    assert float(loss.detach()) == pytest.approx(0.75 * 2 + 0.25 * float(expected.detach()))
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    again = teacher.mix(torch.tensor(2.0), student, images)
    assert float(again.detach()) == float(loss.detach())  # evaluation mode: no statistic moved


@pytest.mark.slow
def test_only_the_stages_after_the_dense_one_are_taught(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    summaries = {}
    for name, spec in (("alone", None), ("taught", {"weight": 0.5})):
        task = task_of(tiny, tmp_path / name, distillation=spec)
        summary = run_stages(task, task.recipe, RunDirectory(tmp_path / name), "test")
        assert summary is not None
        summaries[name] = summary
    assert summaries["alone"].dense == summaries["taught"].dense
    assert "dense network" in summaries["taught"].notes[0]
    assert not any("dense network" in note for note in summaries["alone"].notes)
    losses = {
        name: [
            event["train_loss"]
            for event in RunDirectory(tmp_path / name).events()
            if event["event"] == "epoch" and event["stage"] == "retrain"
        ]
        for name in summaries
    }
    assert losses["alone"] != losses["taught"]
    saved = torch.load(tmp_path / "taught" / "pruned.pt", weights_only=True)
    assert not [key for key in saved if "teacher" in key]


@pytest.mark.slow
def test_a_run_that_is_resumed_in_retraining_has_the_same_teacher(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    class Killed(ClassificationTask):
        def retrain(self, model: nn.Module, pruner: Any) -> None:
            raise KeyboardInterrupt

    changes = {"distillation": {"weight": 0.9, "temperature": 2.0}}
    whole = task_of(tiny, tmp_path / "whole", **changes)
    run_stages(whole, whole.recipe, RunDirectory(tmp_path / "whole"), "test")
    cut = RunDirectory(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run_stages(Killed(whole.recipe, cut), whole.recipe, cut, "test")
    run_stages(ClassificationTask(whole.recipe, cut), whole.recipe, cut, "test")
    saved = [torch.load(tmp_path / d / "pruned.pt", weights_only=True) for d in ("whole", "cut")]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])


@pytest.mark.slow
def test_another_checkpoint_teaches(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["stages"]["dense"]["epochs"] = 1
    first = task_of(tiny, tmp_path / "first")
    run_stages(first, first.recipe, RunDirectory(tmp_path / "first"), "test")
    outcomes = []
    for name in (None, "dense", "final"):
        file = None if name is None else tmp_path / "first" / "checkpoints" / f"{name}.pt"
        folder = tmp_path / f"taught_by_{name}"
        task = task_of(tiny, folder, distillation={"weight": 0.9, "teacher": file})
        summary = run_stages(task, task.recipe, RunDirectory(folder), "test")
        assert summary is not None
        assert summary.notes[0].startswith(
            f"Constrained training and masked retraining learn from {file or 'the dense network'} too"
        )
        outcomes.append(torch.load(folder / "pruned.pt", weights_only=True)["linear.weight"])
    assert torch.equal(outcomes[0], outcomes[1])  # the dense network's own weights, from a file
    assert not torch.equal(outcomes[0], outcomes[2])


def test_a_teacher_that_is_not_there_shows_before_training(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"distillation\.teacher is .*no\.pt, but there is no such"
    ):
        task_of(tiny, tmp_path, distillation={"teacher": tmp_path / "no.pt"})


def test_a_teacher_that_does_not_load_or_fit_shows_before_training(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    garbage, other, broken = (tmp_path / f"{name}.pt" for name in ("garbage", "other", "broken"))
    garbage.write_bytes(b"no checkpoint")
    torch.save({"linear.weight": torch.zeros(3, 64)}, other)
    state = task_of(tiny, tmp_path).build_model().state_dict()
    state["linear.weight"] = torch.full_like(state["linear.weight"], float("nan"))
    torch.save(state, broken)
    for file, text in ((garbage, "cannot be opened"), (other, "does not fit"), (broken, "NaN")):
        task = task_of(tiny, tmp_path / file.stem, distillation={"teacher": file})
        with pytest.raises(InputError, match=rf"distillation\.teacher: .*{text}"):
            run_stages(task, task.recipe, RunDirectory(tmp_path / file.stem), "test")
        assert not RunDirectory(tmp_path / file.stem).events()


@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": 1.5}, {"temperature": 0}])
def test_what_is_allowed(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="weight ≤ 1 and temperature > 0"):
        Distillation(**wrong)
