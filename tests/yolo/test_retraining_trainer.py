"""Masked retraining inside Ultralytics: zeros in every place where it keeps weights, recoveries, stopping."""

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import (
    OPTIONS,
    constrained_settings,
    images,
    start_file,
    tiny_model,
    trainer_of,
)

import detprune as dp

# isort: split
from detprune_yolo import ConstrainedTrainer, RetrainingTrainer, constrained, retraining
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.weights.checkpoints import load_model, read_masks

# isort: split
from ultralytics import YOLO

pytestmark = pytest.mark.slow


def zeros_outside(state: dict[str, Any], masks: dict[str, Any]) -> int:
    return sum(int(torch.count_nonzero(state[name][~mask])) for name, mask in masks.items())


def hard_pruned(folder: Path, model: Any = None) -> Path:
    """A checkpoint with masks, without a training."""
    model = model if model is not None else tiny_model()
    pruner = dp.Pruner(
        model, None, dp.OneShot(), budget=dp.Budget(compression=3.33, exclude=["model.20.*"])
    )
    pruner.hard_prune()
    return start_file(folder, pruner.masks, model)


def test_masked_weights_are_zero_wherever_ultralytics_keeps_weights(tmp_path: Path) -> None:
    start = hard_pruned(tmp_path)
    masks = read_masks(start)
    assert masks
    trainer = trainer_of(
        RetrainingTrainer, StageSettings(stage="retrain"), start, tmp_path, epochs=3, momentum=0.9
    )
    counts: list[int] = []

    def count(running: Any) -> None:
        counts.append(zeros_outside(running.model.state_dict(), masks))
        counts.append(zeros_outside(running.ema.ema.state_dict(), masks))

    trainer.add_callback("on_train_batch_end", count)
    trainer.train()
    assert len(counts) == 3 * 4 * 2
    assert not any(counts)
    before, after = load_model(start).state_dict(), load_model(trainer.last).state_dict()
    for path in (trainer.last, trainer.best):
        loaded = YOLO(str(path)).model
        assert zeros_outside(loaded.state_dict(), masks) == 0
        assert zeros_outside(copy.deepcopy(loaded).half().state_dict(), masks) == 0
        fused = copy.deepcopy(loaded).fuse(verbose=False).state_dict()
        assert zeros_outside(fused, {n: m for n, m in masks.items() if n in fused}) == 0
    for name, mask in masks.items():  # and only those are zero: the rest has moved
        assert not torch.equal(before[name][mask], after[name][mask])


def test_what_retraining_leaves_can_be_retrained(tmp_path: Path) -> None:
    start = hard_pruned(tmp_path)
    masks = read_masks(start)
    assert masks
    for round_ in ("first", "second"):
        settings = StageSettings(stage="retrain")
        trainer = trainer_of(
            RetrainingTrainer, settings, start, tmp_path, epochs=1, name=f"{round_}"
        )
        trainer.train()
        for path in (trainer.last, trainer.best):
            found = read_masks(path)
            assert found is not None
            assert all(torch.equal(found[name], mask) for name, mask in masks.items())
            assert zeros_outside(load_model(path).state_dict(), masks) == 0
            with zipfile.ZipFile(path) as archive:
                assert zipfile.ZIP_DEFLATED in {r.compress_type for r in archive.infolist()}
        start = trainer.best
    plain = YOLO(str(start))
    plain.train(
        data=str(images()), **{**OPTIONS, "epochs": 1, "project": str(tmp_path), "name": "plain"}
    )
    lost = tmp_path / "plain" / "weights" / "last.pt"
    with pytest.raises(
        dp.InputError, match=r"carries no masks.*keeps no masks, and does not keep zeros"
    ):
        trainer_of(
            RetrainingTrainer, StageSettings(stage="retrain"), lost, tmp_path, epochs=1
        ).train()


def test_a_nan_recovery_does_not_bring_masked_weights_back(tmp_path: Path) -> None:
    start = hard_pruned(tmp_path)
    masks = read_masks(start)
    assert masks
    settings = StageSettings(stage="retrain")
    trainer = trainer_of(RetrainingTrainer, settings, start, tmp_path, epochs=3)
    poisoned = []

    def poison(running: Any) -> None:
        if running.epoch == 1 and not poisoned:
            poisoned.append(True)
            running.loss = running.loss * float("nan")

    trainer.add_callback("on_train_epoch_end", poison)
    trainer.train()
    assert poisoned
    assert zeros_outside(trainer.ema.ema.state_dict(), masks) == 0
    assert zeros_outside(trainer.model.state_dict(), masks) == 0


def test_explicit_masks_survive_weights_too_small_for_half_precision(tmp_path: Path) -> None:
    model = tiny_model()
    name = "model.4.conv.weight"
    with torch.no_grad():
        model.get_parameter(name)[0, 0, 0, 0] = 1e-9
    masks = {name: torch.ones_like(model.get_parameter(name), dtype=torch.bool)}
    path = start_file(tmp_path, masks, model)
    assert load_model(path).get_parameter(name)[0, 0, 0, 0] == 0
    assert bool(read_masks(path)[name].all())  # type: ignore[index]


@pytest.mark.parametrize("trainer", [constrained, retraining])
def test_a_trainer_that_was_not_called_is_told_how(trainer: Any) -> None:
    model = YOLO("yolov8n.yaml")
    with pytest.raises(dp.InputError, match=rf"call it: trainer={trainer.__name__}\("):
        model.train(trainer=trainer, data="coco8.yaml", epochs=1)


def test_a_checkpoint_without_masks_is_refused_for_retraining(tmp_path: Path) -> None:
    settings = StageSettings(stage="retrain")
    trainer = trainer_of(RetrainingTrainer, settings, start_file(tmp_path), tmp_path, epochs=1)
    with pytest.raises(dp.InputError, match=r"carries no masks.*hard_pruned\.pt"):
        trainer.train()
    loaded = YOLO("yolov8n.yaml").load(str(hard_pruned(tmp_path)))
    options = {**OPTIONS, "epochs": 1, "project": str(tmp_path)}
    with pytest.raises(
        dp.InputError, match=r"yolov8n\.yaml is a description .*; write YOLO\(file\)"
    ):
        loaded.train(trainer=RetrainingTrainer, data=str(images()), **options)


def test_early_stopping_is_for_retraining_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constrained_trainer = trainer_of(
        ConstrainedTrainer, constrained_settings(), start_file(tmp_path), tmp_path, patience=1
    )
    assert constrained_trainer.args.patience == 0
    settings, start = StageSettings(stage="retrain"), hard_pruned(tmp_path)
    retraining = trainer_of(RetrainingTrainer, settings, start, tmp_path, epochs=30, patience=1)
    # Ultralytics does not stop before mAP has left zero
    monkeypatch.setattr(retraining, "validate", lambda: (retraining.metrics, 1.0))
    retraining.train()
    assert retraining.epoch + 1 == 2
