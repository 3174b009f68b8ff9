"""A dense detector that teaches: the loss, who may teach, that no file holds it, and resuming."""

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch
from trainings import OPTIONS, constrained_settings, images, same, start_file, tiny_model
from trainings import trainer_of as made

import detprune as dp

# isort: split
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_yolo import (
    ConstrainedTrainer,
    DetectionRecipe,
    DetectionTask,
    RetrainingTrainer,
    constrained,
    retraining,
)
from detprune_yolo.training.distillation import TaughtCriterion, divergence
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from torch import nn
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
from ultralytics.utils.metrics import bbox_iou


def detector(cfg: str = "yolov3-tiny.yaml", nc: int = 3) -> Any:
    layers = yaml_model_load(cfg)
    layers.update(width_multiple=0.0625, nc=nc)
    if "scales" in layers:
        layers.update(scales={"n": [0.33, 0.0625, 1024]}, scale="n")
    model = DetectionModel(layers, verbose=False)
    model.args = get_cfg()
    return model


def batch(count: int = 2) -> dict[str, Any]:
    return {
        "img": torch.rand(count, 3, 64, 64),
        "batch_idx": torch.arange(count).float(),
        "cls": torch.zeros(count, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.3]]).expand(count, 4).contiguous(),
    }


def test_the_divergence_is_that_of_its_three_terms() -> None:
    model = detector()
    criterion = model.init_criterion()
    criterion.hyp = SimpleNamespace(box=2.0, cls=3.0, dfl=5.0)
    side = 8
    feats = [torch.zeros(1, 1, side, side)]
    criterion.stride = torch.tensor([8.0])
    ours, taught = (
        {
            "boxes": torch.randn(1, 64, side * side),
            "scores": torch.randn(1, 3, side * side),
            "feats": feats,
        }
        for _ in range(2)
    )
    box, cls, dfl, total = 0.0, 0.0, 0.0, 0.0
    for anchor in range(side * side):
        q = torch.sigmoid(taught["scores"][0, :, anchor])
        p = torch.sigmoid(ours["scores"][0, :, anchor])
        cls += float((q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()).sum())
        weight = float(q.max())
        total += weight
        a, b = (torch.softmax(x["boxes"][0, :, anchor].view(4, 16), 1) for x in (ours, taught))
        dfl += weight * float((b * (b / a).log()).sum()) / 4
        x, y = anchor % side + 0.5, anchor // side + 0.5
        edges = [d @ torch.arange(16.0) for d in (a, b)]
        one, two = (torch.stack((x - e[0], y - e[1], x + e[2], y + e[3])) for e in edges)
        box += weight * (1 - float(bbox_iou(one[None], two[None], xywh=False, CIoU=True)))
    found = divergence(criterion, ours, taught)
    expected = torch.tensor([2 * box, 3 * cls, 5 * dfl]) / total
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(divergence(criterion, ours, ours), torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("cfg", ["yolov3-tiny.yaml", "yolov8.yaml", "yolov10n.yaml", "yolo26.yaml"])
def test_the_loss_is_mixed_and_leads_to_the_teacher(cfg: str) -> None:
    torch.manual_seed(0)
    teacher, network = detector(cfg), detector(cfg).train()
    held = copy.deepcopy(teacher.state_dict())
    data = batch()
    plain, items = network.init_criterion()(network(data["img"]), data)
    network.criterion = criterion = TaughtCriterion(network, teacher, 0.25)
    mixed, mixed_items = network.loss(data)
    assert mixed_items.keys() == items.keys()
    criterion.weight = 1.0
    taught, taught_items = network.loss(data)
    torch.testing.assert_close(mixed, 0.75 * plain + 0.25 * taught)
    for name, value in mixed_items.items():
        torch.testing.assert_close(value, 0.75 * items[name] + 0.25 * taught_items[name])

    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    before = float(taught.sum().detach())
    for _ in range(12):
        optimizer.zero_grad()
        loss, _ = network.loss(data)
        loss.sum().backward()
        optimizer.step()
    assert float(loss.sum().detach()) < 0.7 * before
    assert same(dict(teacher.state_dict()), dict(held))
    assert not any(p.requires_grad for p in teacher.parameters())


def test_copies_and_files_of_a_taught_network_have_no_teacher() -> None:
    network = detector()
    network.criterion = TaughtCriterion(network, detector(), 0.5)
    assert copy.deepcopy(network).criterion is None
    assert pickle.loads(pickle.dumps(network)).criterion is None
    assert network.state_dict().keys() == detector().state_dict().keys()


@pytest.mark.parametrize(
    ("teacher", "text"),
    [(("yolov3-tiny.yaml", 4), "4 classes"), (("yolov8.yaml", 3), "3 levels")],
)
def test_another_kind_of_detector_cannot_teach(teacher: tuple[str, int], text: str) -> None:
    with pytest.raises(dp.InputError, match=rf"the teacher's head has .*{text}"):
        TaughtCriterion(detector(), detector(*teacher), 0.5)


def test_a_teacher_that_is_not_there_is_named(tmp_path: Path) -> None:
    settings = constrained_settings(teacher=tmp_path / "dense.pt")
    trainer = made(ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=1)
    with pytest.raises(dp.InputError, match=r"dense\.pt"):
        trainer.train()


@pytest.mark.slow
def test_both_trainers_are_taught_and_resume_with_the_same_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = start_file(tmp_path / "teacher", model=tiny_model())
    options = {**OPTIONS, "data": str(images()), "epochs": 2, "project": str(tmp_path)}
    finished: dict[str, Any] = {}
    for name in ("alone", "whole", "cut"):
        teacher = None if name == "alone" else dense

        def cut(trainer: Any, name: str = name) -> None:
            if name == "cut" and trainer.epoch == 1:
                raise KeyboardInterrupt

        kind = constrained(
            dp.SLR(rho="auto"),
            dp.Budget(compression=3.33),
            teacher=teacher,
            teacher_weight=0.9,
            check_every=1,
        )
        model = YOLO(str(start_file(tmp_path)))
        model.add_callback("on_train_batch_end", cut)
        if name == "cut":
            with pytest.raises(KeyboardInterrupt):
                model.train(trainer=kind, name=name, **options)
            YOLO(str(tmp_path / name / "weights" / "last.pt")).train(trainer=kind, resume=True)
        else:
            model.train(trainer=kind, name=name, **options)
        hard_pruned = tmp_path / name / "weights" / "hard_pruned.pt"
        finished[name] = dict(load_model(hard_pruned).state_dict())
        seen: list[Any] = []
        model = YOLO(str(hard_pruned))
        model.add_callback(
            "on_train_end", lambda trainer, seen=seen: seen.append(trainer.model.criterion)
        )
        # what constrained() was told is not for retraining
        model.train(trainer=RetrainingTrainer, name=f"{name}_plain", **{**options, "epochs": 1})
        assert not isinstance(seen.pop(), TaughtCriterion)
        if name == "whole":
            again = retraining(dense, 0.75)
            model = YOLO(str(hard_pruned))
            model.add_callback(
                "on_train_end", lambda trainer, seen=seen: seen.append(trainer.model.criterion)
            )
            model.train(trainer=again, name="taught", **{**options, "epochs": 1})
            assert seen.pop().weight == 0.75
    assert same(finished["whole"], finished["cut"])
    assert not same(finished["whole"], finished["alone"])
    sizes = {n: (tmp_path / n / "weights" / "last.pt").stat().st_size for n in ("alone", "whole")}
    assert abs(sizes["whole"] - sizes["alone"]) < 2_000


@pytest.mark.slow
def test_a_recipe_with_distillation_and_a_run_that_is_resumed_in_retraining(
    tmp_path: Path, tiny_detector: dict[str, Any]
) -> None:
    class Killed(DetectionTask):
        def retrain(self, model: nn.Module, pruner: Any) -> None:
            raise KeyboardInterrupt

    def run(kind: type[DetectionTask], folder: str, **changes: Any) -> None:
        recipe = validate(DetectionRecipe, {**tiny_detector, **changes})
        directory = RunDirectory(tmp_path / folder)
        run_stages(kind(recipe, directory), recipe, directory, "test")

    for stage in tiny_detector["stages"].values():
        stage["epochs"] = 1
    taught = {"distillation": {"weight": 0.75}}
    run(DetectionTask, "alone")
    run(DetectionTask, "whole", **taught)
    with pytest.raises(KeyboardInterrupt):
        run(Killed, "cut", **taught)
    run(DetectionTask, "cut", **taught)
    wider = start_file(tmp_path / "wider", model=tiny_model(width=0.125))
    run(DetectionTask, "wider", distillation={"weight": 0.75, "teacher": str(wider)})

    weights = {n: load_model(tmp_path / n / "pruned.pt").state_dict() for n in ("whole", "cut")}
    assert same(dict(weights["whole"]), dict(weights["cut"]))
    other = load_model(tmp_path / "wider" / "pruned.pt").state_dict()
    assert other.keys() == weights["whole"].keys()
    assert not same(dict(other), dict(weights["whole"]))
    start = tmp_path / "wider" / "checkpoints" / "start" / "teacher.pt"
    assert same(dict(load_model(start).state_dict()), dict(load_model(wider).state_dict()))
    missing = {"distillation": {"teacher": str(tmp_path / "no.pt")}}
    with pytest.raises(dp.InputError, match=r"no\.pt, but there is no such file"):
        run(DetectionTask, "missing", **missing)

    found = {n: RunDirectory(tmp_path / n).summary() for n in ("alone", "whole")}
    notes = {name: summary.notes for name, summary in found.items() if summary is not None}
    assert "dense detector" in notes["whole"][0]
    assert not any("dense detector" in note for note in notes["alone"])
    losses = {
        name: {
            event["stage"]: event["train_loss"]
            for event in RunDirectory(tmp_path / name).events()
            if event["event"] == "epoch"
        }
        for name in found
    }
    assert losses["alone"]["dense"] == losses["whole"]["dense"]
    for stage in ("constrained", "retrain"):
        assert losses["alone"][stage] != losses["whole"][stage]


def test_the_class_carries_its_teacher_to_other_processes(tmp_path: Path) -> None:
    dense = start_file(tmp_path / "teacher", model=tiny_model())
    kind = retraining(dense, 0.75)
    sent = cloudpickle.loads(cloudpickle.dumps(kind))  # as Ultralytics sends it
    assert sent.settings == kind.settings
    assert (sent.settings.teacher, sent.settings.teacher_weight) == (dense, 0.75)
    assert RetrainingTrainer.settings.teacher is None
