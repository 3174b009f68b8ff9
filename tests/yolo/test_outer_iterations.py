"""Where in a training inside Ultralytics outer iterations end, also where epochs are run again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import run_constrained

import detprune as dp
from detprune.run.directory import RunDirectory

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("every", "epochs"),
    [(1, [1, 2, 3]), (0.5, [1, 1, 2, 2, 3, 3]), (1.5, [2, 3]), (9, [3])],
)
def test_outer_iterations_divide_the_training_evenly(
    tmp_path: Path, every: float, epochs: list[int]
) -> None:
    trainer = run_constrained(tmp_path, every=every, run_dir=tmp_path, epochs=3)
    outer = [e for e in RunDirectory(tmp_path).events() if e["event"] == "outer"]
    assert [e["epoch"] for e in outer] == epochs
    assert [e["k"] for e in outer] == list(range(1, len(epochs) + 1))
    assert trainer.pruner.steps_per_update == round(3 * 4 / len(epochs))


def test_outer_iterations_without_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        dp.InputError, match=r"every is 0\.2 epochs, in which there is no optimizer"
    ):
        run_constrained(tmp_path, every=0.2, epochs=1)


@pytest.mark.parametrize("every", [1, 0.5])
def test_an_epoch_that_met_a_nan_updates_once(tmp_path: Path, every: float) -> None:
    poisoned = []

    def poison(trainer: Any) -> None:
        if trainer.epoch == 1 and not poisoned:
            poisoned.append(trainer.epoch)
            trainer.pruner.observe(float("nan"))
            trainer.loss = trainer.loss * float("nan")

    trainer = run_constrained(tmp_path, ("on_train_epoch_end", poison), every=every, epochs=3)
    history = trainer.pruner.history
    assert poisoned == [1]
    assert [entry.k for entry in history] == list(range(1, round(3 / every) + 1))
    assert all(torch.isfinite(torch.tensor(entry.task_loss)) for entry in history)
    assert not (trainer.wdir / "last.detprune.pt").exists()  # training is over


@pytest.mark.parametrize("every", [1, 0.5])
def test_an_out_of_memory_retry_updates_once(tmp_path: Path, every: float) -> None:
    def starve(trainer: Any) -> None:
        handle: list[Any] = []

        def fail(module: Any, args: Any) -> None:
            if module.training and trainer.epoch == 0 and trainer._batch == 2:
                assert len(trainer.pruner.history) == (0 if every == 1 else 1)
                handle.pop().remove()
                raise RuntimeError("CUDA out of memory (not really)")

        handle.append(trainer.model.model[-1].register_forward_pre_hook(fail))

    trainer = run_constrained(tmp_path, ("on_train_start", starve), every=every, epochs=2, nbs=4)
    assert trainer.batch_size == 4  # Ultralytics halved it
    assert [entry.k for entry in trainer.pruner.history] == list(range(1, round(2 / every) + 1))
    assert trainer.pruner.steps_per_update == round(8 * every)


@pytest.mark.parametrize(("nbs", "every"), [(8, 1), (32, 1), (8, 0.8), (16, 0.6)])
def test_a_pull_is_the_one_asked_for_through_the_warm_up(
    tmp_path: Path, nbs: int, every: float
) -> None:
    seen: list[tuple[float, float]] = []

    def watch(trainer: Any) -> None:
        optimizer = trainer.optimizer
        first = trainer.pruner._problem.weights[0]
        group = next(g for g in optimizer.param_groups if any(p is first for p in g["params"]))
        optimizer.register_step_pre_hook(
            lambda *_: seen.append((len(trainer.pruner.history), float(group["lr"])))
        )

    trainer = run_constrained(
        tmp_path,
        ("on_train_start", watch),
        method=dp.SLR(rho="auto"),
        epochs=4,
        every=every,
        nbs=nbs,
        warmup_epochs=3.0,
        optimizer="SGD",
        lr0=0.01,
    )
    history = trainer.pruner.history
    updates = round(4 / every)
    asked = [0.3 * 10 ** (k / (updates - 1)) for k in range(updates)]
    assert [entry.pull for entry in history] == pytest.approx(asked)
    for k, entry in enumerate(history):
        time = sum(lr for number, lr in seen if number == k)
        assert entry.rho == pytest.approx(asked[k] / time)
