"""Where the outer iterations of a fit end, and the pull that they have."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

import detprune as dp
import lightning as L
from detprune_lightning import ConstrainedTraining
from tests.lightning.test_callbacks import BUDGET, Net, loader, trainer


def test_uneven_outer_iterations_end_with_the_last_step_and_have_their_pull(tmp_path: Path) -> None:
    module, seen = Net(), []
    training = ConstrainedTraining(
        dp.ADMM(rho=dp.Pull(0.5, 2)),
        budget=BUDGET,
        every=0.3,
        network=module.network,
        on_update=lambda e, n: seen.append((e.k, n)),
    )
    trainer(tmp_path, [training]).fit(module, loader())
    assert [k for k, _ in seen] == list(range(1, 11))
    assert seen[-1][1] == 3
    # ten outer iterations of two or three of the 24 steps
    asked = [0.5 * 4 ** (k / 9) for k in range(10)]
    assert [entry.pull for entry in training.pruner.history] == pytest.approx(asked)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize(
    ("batches", "every", "accumulated", "where"),
    [
        (8, 0.3, None, {"every_n_epochs": 1}),
        (12, 0.3, {0: 3, 2: 2}, {"every_n_epochs": 4}),
        (5, 0.75, None, {"every_n_train_steps": 5}),  # with the last batch of an epoch
    ],
)
def test_uneven_outer_iterations_that_are_resumed_have_their_pull(
    tmp_path: Path,
    batches: int,
    every: float,
    accumulated: dict[int, int] | None,
    where: dict[str, int],
) -> None:
    def fit(resume: Path | None = None) -> list[dp.OuterIteration]:
        module = Net()
        training = ConstrainedTraining(
            dp.ADMM(rho=dp.Pull(0.5, 2)), budget=BUDGET, every=every, network=module.network
        )
        saved = ModelCheckpoint(tmp_path / "saved", filename="{epoch}", save_top_k=-1, **where)
        own = [] if accumulated is None else [GradientAccumulationScheduler(accumulated)]
        fitted = trainer(tmp_path, [training, *own, saved], max_epochs=5, enable_checkpointing=True)
        fitted.fit(module, loader(batches), ckpt_path=resume, weights_only=True)
        return training.pruner.history

    whole = fit()
    first = min((tmp_path / "saved").iterdir())
    assert fit(first) == whole


def test_sas_admm_keeps_its_own_pace(tmp_path: Path) -> None:
    module = Net()
    training = ConstrainedTraining(dp.SASADMM(inner_steps=5), budget=BUDGET, network=module.network)
    trainer(tmp_path, [training]).fit(module, loader())
    assert len(training.pruner.history) == 24 // 5


def test_outer_iterations_without_a_step_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, every=0.01)
    trainer(tmp_path, [training]).fit(Net(), loader())
    said = [r.getMessage() for r in caplog.records if "no optimizer step" in r.getMessage()]
    steps = len(training.pruner.history)
    assert said == [
        "every is 0.01 epochs, in which there is no optimizer step: outer iterations are "
        f"{steps}, of a step each"
    ]


class Skipping(Net):
    """Skips every third batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 3 == 2 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`")
def test_a_batch_that_is_skipped_still_ends_outer_iterations(tmp_path: Path) -> None:
    module = Skipping()
    training = ConstrainedTraining(dp.ADMM(), budget=BUDGET, every=0.375, network=module.network)
    trainer(tmp_path, [training]).fit(module, loader())
    assert len(training.pruner.history) == 8


@pytest.mark.parametrize("schedule", [{0: 1, 1: 4}, {0: 4, 1: 1}])
def test_outer_iterations_go_by_progress(
    tmp_path: Path, schedule: dict[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    module = Net()
    training = ConstrainedTraining(
        dp.ADMM(ramp=0.75), budget=BUDGET, every=0.5, network=module.network
    )
    accumulation = GradientAccumulationScheduler(schedule)
    trainer(tmp_path, [training, accumulation], max_epochs=4).fit(module, loader())
    assert len(training.pruner.history) == 8
    training.hard_prune()
    assert "is hard-pruned at" not in caplog.text


@pytest.mark.parametrize(
    ("batches", "every", "options"),
    [
        (13, 0.3, {"accumulate_grad_batches": 4, "max_epochs": 6}),
        (6, 1.3, {"accumulate_grad_batches": 5, "max_epochs": 5}),
        (5, 0.75, {"accumulate_grad_batches": 4, "max_steps": 26}),
        (11, 0.75, {"accumulate_grad_batches": {0: 3, 3: 4}, "max_epochs": 5}),
        (4, 0.25, {"accumulate_grad_batches": {0: 2, 1: 4}, "max_epochs": 2}),
    ],
)
def test_outer_iterations_have_the_steps_that_their_pull_was_planned_for(
    tmp_path: Path, batches: int, every: float, options: dict[str, Any]
) -> None:
    module, seen = Net(), []
    training = ConstrainedTraining(
        dp.ADMM(rho="auto"), budget=BUDGET, every=every, network=module.network
    )

    class Watch(L.Callback):
        def on_before_optimizer_step(self, *_: Any) -> None:
            seen.append((len(training.pruner.history), training.pruner.steps_per_update))

    callbacks: list[L.Callback] = [training, Watch()]
    if isinstance(options["accumulate_grad_batches"], dict):
        callbacks.append(GradientAccumulationScheduler(options.pop("accumulate_grad_batches")))
    trainer(tmp_path, callbacks, **options).fit(module, loader(batches))
    history = training.pruner.history
    assert seen[-1][0] == len(history) - 1
    for k in range(len(history)):
        planned = [steps for done, steps in seen if done == k]
        assert planned == [len(planned)] * len(planned)


def test_a_schedule_that_is_cut_off_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            trainer.should_stop = True

    module = Net()
    training = ConstrainedTraining(
        dp.ADMM(ramp=0.75), budget=BUDGET, every=1, network=module.network
    )
    trainer(tmp_path, [training, Stop()]).fit(module, loader())
    training.hard_prune()
    assert "ADMM is hard-pruned at outer iteration 1 of 3, in which Z has" in caplog.text
