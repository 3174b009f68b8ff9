"""Constrained training inside Ultralytics: order of a step, epochs that are run again, checks, resume."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import (
    OPTIONS,
    constrained_settings,
    images,
    run_constrained,
    same,
    sidecar,
    start_file,
    trainer_of,
)

import detprune as dp

# isort: split
from detprune_yolo import ConstrainedTrainer, RetrainingTrainer, constrained
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.weights.checkpoints import load_model, read_masks

# isort: split
from ultralytics import YOLO
from ultralytics.data import augment
from ultralytics.models.yolo.detect import DetectionTrainer

pytestmark = pytest.mark.slow


def zeros_outside(state: dict[str, Any], masks: dict[str, Any]) -> int:
    return sum(int(torch.count_nonzero(state[name][~mask])) for name, mask in masks.items())


def test_without_a_method_the_trainer_trains_as_ultralytics_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # where albumentations is installed Ultralytics blurs and greys one image in a hundred, and has no
    # option against that
    monkeypatch.setattr(augment.Albumentations, "__call__", lambda self, labels: labels)
    # the order of images is the adapter's own, so one batch that holds them all
    options = {"epochs": 2, "batch": 30, "nbs": 30, "mosaic": 0.0, "fliplr": 0.0, "scale": 0.0}
    options |= {"translate": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    start = start_file(tmp_path)
    ours = trainer_of(ResumableTrainer, StageSettings(stage="dense"), start, tmp_path, **options)
    ours.train()
    stock = DetectionTrainer(
        overrides={
            **OPTIONS,
            **options,
            "model": str(start),
            "data": str(images()),
            "project": str(tmp_path),
            "name": "stock",
        }
    )
    stock.train()
    for a, b in zip(ours.model.parameters(), stock.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)  # sums over another order


def test_the_penalty_joins_gradients_that_are_clipped_already(tmp_path: Path) -> None:
    trainer = trainer_of(
        ConstrainedTrainer,
        constrained_settings(dp.ADMM(rho=1000.0)),
        start_file(tmp_path),
        tmp_path,
        epochs=1,
    )
    norms: list[float] = []

    def watch(running: Any) -> None:  # after the pruner's own hook
        def note(optimizer: Any, args: Any, kwargs: Any) -> None:
            held = [p.grad for group in optimizer.param_groups for p in group["params"]]
            grads = torch.cat([grad.flatten() for grad in held if grad is not None])
            norms.append(float(torch.linalg.vector_norm(grads)))

        running.optimizer.register_step_pre_hook(note)

    trainer.add_callback("on_train_start", watch)
    trainer.train()
    assert norms[0] > 100  # Ultralytics clips to 10


@pytest.mark.parametrize(
    "method",
    [
        dp.ADMM(rho=0.5),
        dp.SLR(rho="auto"),
        dp.SASADMM(inner_steps=3, nu=10.0, beta=0.2),
        dp.Magnitude(),
        dp.GradualMagnitude(),
        dp.DPF(),
        dp.OneShot(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_every_method_trains_and_leaves_a_hard_pruned_file(
    tmp_path: Path, method: dp.Method
) -> None:
    settings = constrained_settings(method, run_dir=tmp_path, check_every=1)
    trainer = trainer_of(ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=2)
    trainer.train()
    weights = tmp_path / "constrained" / "weights"
    masks = read_masks(weights / "hard_pruned.pt")
    assert masks is not None
    assert len(masks) == 18
    kept, total = sum(int(m.sum()) for m in masks.values()), sum(m.numel() for m in masks.values())
    assert abs(total / kept - 3.33) < 0.01
    assert zeros_outside(load_model(weights / "hard_pruned.pt").state_dict(), masks) == 0
    if method.needs_loss:
        assert len(sidecar(trainer)["pruner"]["history"]) == 2  # a run keeps it


def test_sas_admm_goes_back_to_the_last_whole_epoch_after_a_nan(tmp_path: Path) -> None:
    seen: list[int] = []

    def poison(trainer: Any) -> None:
        if trainer.epoch == 1 and len(seen) == 1:
            seen.append(len(trainer.pruner.history))
            trainer.loss = trainer.loss * float("nan")

    def look(trainer: Any) -> None:
        if trainer.epoch == 1:
            seen.append(len(trainer.pruner.history))

    settings = constrained_settings(dp.SASADMM(inner_steps=2, nu=10.0, beta=0.2))
    trainer = trainer_of(
        ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=2, nbs=4
    )
    trainer.add_callback("on_train_epoch_end", poison)
    trainer.add_callback("on_train_epoch_start", look)
    trainer.train()
    # begun after 2 updates; broken off after 4; begun again after 2
    assert seen == [2, 4, 2]


def poison_first_batch_of_second_epoch(trainer: Any) -> None:
    if trainer.epoch == 1 and not hasattr(trainer, "poisoned"):
        trainer.poisoned = True
        with torch.no_grad():
            trainer.model.model[4].conv.weight.fill_(float("nan"))


@pytest.mark.parametrize("every", [1, 0.25])
@pytest.mark.parametrize(
    "method", [dp.SASADMM(inner_steps=2, nu=10.0, beta=0.2), dp.SLR(rho=0.5, step_size=0.01)]
)
def test_weights_that_become_nan_are_left_to_ultralytics_recovery(
    tmp_path: Path, method: dp.Method, every: float
) -> None:
    settings = constrained_settings(method, every=every)
    trainer = trainer_of(ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=3)
    trainer.add_callback("on_train_batch_start", poison_first_batch_of_second_epoch)
    trainer.train()
    assert trainer.poisoned
    assert trainer.epoch == 2
    YOLO(str(trainer.last))  # safe loading, too


def test_one_step_that_a_grad_scaler_skips_does_not_end_training(tmp_path: Path) -> None:
    def one_nan(trainer: Any) -> None:
        if trainer._batch == 1:
            trainer.loss_items = {k: v * float("nan") for k, v in trainer.loss_items.items()}

    trainer = trainer_of(
        ConstrainedTrainer,
        constrained_settings(dp.SLR(rho=0.5, step_size=0.01)),
        start_file(tmp_path),
        tmp_path,
        epochs=2,
    )
    trainer.callbacks["on_train_batch_end"].insert(0, one_nan)
    history: list[Any] = []
    trainer.add_callback("on_train_end", lambda t: history.extend(t.pruner.history))
    trainer.train()
    assert all(torch.isfinite(torch.tensor(entry.task_loss)) for entry in history)
    assert len(history) == 2


def test_a_resume_with_another_batch_size_goes_on_stepping(tmp_path: Path) -> None:
    kind = constrained(dp.SLR(rho=0.5, step_size=0.01), dp.Budget(compression=3.33))
    steps: list[int] = []

    def stop(trainer: Any) -> None:
        if trainer.epoch == 2:
            raise KeyboardInterrupt

    def count(trainer: Any) -> None:
        steps.append(trainer.ema.updates)

    model = YOLO(str(start_file(tmp_path)))
    model.add_callback("on_train_batch_end", stop)
    options = {**OPTIONS, "batch": 4, "nbs": 4, "data": str(images()), "project": str(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        model.train(trainer=kind, name="run", epochs=4, **options)
    model = YOLO(str(tmp_path / "run" / "weights" / "last.pt"))
    model.add_callback("on_fit_epoch_end", count)
    model.train(trainer=kind, resume=True, batch=8)
    assert steps[:2] == [2 * 8 + 4, 2 * 8 + 8]


def test_frozen_layers_stay_dense_and_unmoved(tmp_path: Path) -> None:
    start = start_file(tmp_path)
    trainer = trainer_of(
        ConstrainedTrainer, constrained_settings(), start, tmp_path, epochs=1, freeze=5
    )
    trainer.train()
    pruned = {layer.name for layer in trainer.pruner.layers}  # type: ignore[union-attr]
    assert not any(name.startswith(("model.0.", "model.2.", "model.4.")) for name in pruned)
    assert "model.6.conv.weight" in pruned
    before = load_model(start).get_parameter("model.4.conv.weight")
    assert torch.equal(before, trainer.model.get_parameter("model.4.conv.weight"))


def test_training_stops_once_the_check_reaches_its_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.2, 0.6, 0.9])
    monkeypatch.setattr(
        "detprune_yolo.training.trainers.hard_pruned_metric", lambda *_: next(values)
    )
    settings = constrained_settings(check_every=1, stop_at=0.5)
    trainer = trainer_of(ConstrainedTrainer, settings, start_file(tmp_path), tmp_path, epochs=9)
    trainer.train()
    assert trainer.epoch == 1
    assert (trainer.wdir / "hard_pruned.pt").is_file()


def test_the_check_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    states = []
    for every in (0, 1):
        settings = constrained_settings(dp.SLR(rho=0.5, step_size=0.01), check_every=every)
        folder = tmp_path / str(every)
        trainer = trainer_of(ConstrainedTrainer, settings, start_file(folder), folder, epochs=2)
        trainer.train()
        assert trainer.pruner is not None
        state = {"ema": trainer.ema.ema.state_dict(), "history": trainer.pruner.history}
        states.append({**state, "masks": trainer.pruner.masks})
    assert same(states[0], states[1])


@pytest.mark.parametrize("optimizer", ["auto"])
def test_an_optimizer_that_hardly_feels_the_penalty_is_refused(
    tmp_path: Path, optimizer: str
) -> None:
    with pytest.raises(dp.InputError, match=r"'auto'.*optimizer='SGD' and lr0"):
        trainer_of(
            ConstrainedTrainer,
            constrained_settings(),
            start_file(tmp_path),
            tmp_path,
            optimizer=optimizer,
        )


def test_the_few_lines_for_a_user_of_yolo_and_its_own_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(dp.InputError, match="has no method and no budget"):
        trainer_of(ConstrainedTrainer, StageSettings(), start_file(tmp_path), tmp_path)

    kind = constrained(dp.SLR(rho="auto"), dp.Budget(compression=3.33))
    options = {**OPTIONS, "data": str(images()), "epochs": 4, "project": str(tmp_path)}
    # a resumed checkpoint was not trained for the last time
    finished = []
    for name, last_epoch in (("whole", None), ("cut", 1)):

        def cut(trainer: Any, last_epoch: int | None = last_epoch) -> None:
            if trainer.epoch == last_epoch:
                raise KeyboardInterrupt

        model = YOLO(str(start_file(tmp_path)))
        model.add_callback("on_train_epoch_start", lambda trainer: None)
        if last_epoch is not None:
            # after the sidecar of the first epoch, in the second
            model.add_callback("on_train_batch_end", cut)
            with pytest.raises(KeyboardInterrupt):
                model.train(trainer=kind, name=name, **options)
            model = YOLO(str(tmp_path / name / "weights" / "last.pt"))
            model.train(trainer=kind, resume=True)
        else:
            model.train(trainer=kind, name=name, **options)
        finished.append(load_model(tmp_path / name / "weights" / "hard_pruned.pt").state_dict())
    assert same(dict(finished[0]), dict(finished[1]))

    model = YOLO(str(tmp_path / "whole" / "weights" / "hard_pruned.pt"))
    model.train(trainer=RetrainingTrainer, name="again", **{**options, "epochs": 1})
    masks = read_masks(tmp_path / "whole" / "weights" / "hard_pruned.pt")
    assert masks
    assert zeros_outside(model.model.state_dict(), masks) == 0


def test_a_full_disk_leaves_the_files_of_the_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics writes over ``last.pt``: half of it was there, and the training before was lost."""
    write, before = Path.write_bytes, {}

    def full(path: Path, content: bytes) -> int:
        write(path, content[:1000])
        raise OSError(28, "No space left on device")

    def fill(trainer: Any) -> None:
        if trainer.epoch == 1:
            before.update({path.name: path.read_bytes() for path in trainer.wdir.iterdir()})
            monkeypatch.setattr(Path, "write_bytes", full)

    wanted = r"cannot write .*last\.pt: No space left .*; make room.*, then train with resume=True from .*last\.pt"
    with pytest.raises(dp.DetpruneError, match=wanted):
        run_constrained(tmp_path, ("on_train_epoch_end", fill), epochs=2)
    left = {path.name: path.read_bytes() for path in (tmp_path / "constrained/weights").iterdir()}
    assert left == before
    assert {"last.pt", "best.pt", "last.detprune.pt"} <= left.keys()


def test_each_trainer_has_the_settings_it_was_made_with(tmp_path: Path) -> None:
    first = constrained(dp.ADMM(rho=0.1), dp.Budget(compression=2))
    second = constrained(dp.SLR(rho=0.2), dp.Budget(compression=4))
    made = [
        kind(
            overrides={
                **OPTIONS,
                "model": str(start_file(tmp_path)),
                "data": str(images()),
                "project": str(tmp_path),
            }
        )
        for kind in (first, second)
    ]
    assert [trainer.settings.method for trainer in made] == [dp.ADMM(rho=0.1), dp.SLR(rho=0.2)]
    assert [trainer.settings.budget.compression for trainer in made] == [2, 4]  # type: ignore[union-attr]
    assert [type(trainer).__name__ for trainer in made] == ["ConstrainedTrainer"] * 2
    assert ConstrainedTrainer.settings.budget is None


@dataclass(frozen=True)
class OwnMethod(dp.Magnitude):
    """One that is not registered."""


def test_a_method_of_ones_own_prunes_a_detector(tmp_path: Path) -> None:
    kind = constrained(OwnMethod(), dp.Budget(compression=2), every=1, batch_norm_images=0)
    options = {
        **OPTIONS,
        "data": str(images()),
        "epochs": 1,
        "project": str(tmp_path),
        "name": "own",
    }
    YOLO(str(start_file(tmp_path))).train(trainer=kind, **options)
    assert read_masks(tmp_path / "own" / "weights" / "hard_pruned.pt")
