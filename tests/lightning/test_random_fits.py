"""Random fits: each outer iteration makes the steps that its pull was planned for, and a resume changes nothing."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

import detprune as dp
import lightning as L
from detprune_lightning import ConstrainedTraining
from tests.lightning.test_callbacks import Net, loader, trainer

EVERY = (None, 0.25, 0.3, 0.5, 0.6, 0.75, 1, 1.3, 1.5, 2)
KEPT = {"save_top_k": -1, "filename": "{step}"}


class Planned(L.Callback):
    """Keeps, for every optimizer step, the outer iteration and the steps that it was planned with."""

    def __init__(self, training: ConstrainedTraining) -> None:
        self.training = training
        self.steps: list[tuple[int, int]] = []

    def on_before_optimizer_step(self, *_: Any) -> None:
        pruner = self.training.pruner
        self.steps.append((len(pruner.history), pruner.steps_per_update))


class Fit:
    """The random settings of a fit: batches, accumulation, length, and how often the pruner updates."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = random.Random(seed)
        self.batches = draw.randint(2, 23)
        self.options: dict[str, Any] = {"max_epochs": draw.randint(2, 5)}
        self.accumulated: dict[int, int] | None = None
        if draw.random() < 0.5:
            self.options["accumulate_grad_batches"] = draw.randint(1, 5)
        elif draw.random() < 0.6:
            self.accumulated = {0: draw.randint(1, 3), draw.randint(1, 3): draw.randint(1, 4)}
        if draw.random() < 0.15:
            self.options["max_steps"] = draw.randint(2, 40)
        self.every = draw.choice(EVERY)
        self.method = draw.choice((dp.ADMM, dp.SLR))(
            rho="auto", penalty=draw.choice(("gradient", "proximal"))
        )

    def run(
        self, folder: Path, *callbacks: L.Callback, resume: Path | None = None
    ) -> tuple[Net, ConstrainedTraining, list[tuple[int, int]]]:
        module = Net()
        training = ConstrainedTraining(
            self.method,
            budget=dp.Budget(sparsity=0.5),
            every=self.every,
            network=module.network,
        )
        planned = Planned(training)
        own = [] if self.accumulated is None else [GradientAccumulationScheduler(self.accumulated)]
        fitted = trainer(
            folder,
            [training, planned, *own, *callbacks],
            enable_checkpointing=bool(callbacks),
            **self.options,
        )
        fitted.fit(module, loader(self.batches), ckpt_path=resume, weights_only=True)
        return module, training, planned.steps


@pytest.mark.parametrize("seed", range(64))
def test_the_steps_of_an_outer_iteration_are_those_it_was_planned_with(
    tmp_path: Path, seed: int
) -> None:
    _, training, steps = Fit(seed).run(tmp_path)
    last = len(training.pruner.history)
    assert max(k for k, _ in steps) == last - 1, "steps after the last outer iteration"
    for k in range(last):
        planned = [count for outer, count in steps if outer == k]
        assert sum(1 / count for count in planned) == pytest.approx(1), (k, planned)


@pytest.mark.filterwarnings(
    "ignore:Checkpoint directory", "ignore:Be aware that when using `ckpt_path`"
)
@pytest.mark.parametrize("seed", range(24))
def test_a_fit_that_is_resumed_after_an_epoch_ends_with_the_same_bits(
    tmp_path: Path, seed: int
) -> None:
    fit = Fit(seed)
    fit.options.pop("max_steps", None)  # with it Lightning alone does not go on exactly
    saved = ModelCheckpoint(tmp_path / "saved", save_on_train_epoch_end=True, **KEPT)
    whole, training, _ = fit.run(tmp_path, saved)
    checkpoint = fit.draw.choice(sorted((tmp_path / "saved").iterdir()))
    resumed, again, _ = fit.run(tmp_path, resume=checkpoint)
    assert again.pruner.history == training.pruner.history
    assert torch.equal(resumed.network[0].weight, whole.network[0].weight)
