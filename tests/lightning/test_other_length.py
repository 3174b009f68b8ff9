"""Fits of another length than planned: resumed with more or fewer epochs, or with loaders that grow."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, TensorDataset

import detprune as dp
import lightning as L
from detprune_lightning import ConstrainedTraining
from tests.lightning.test_callbacks import BUDGET, Net, loader, trainer

PULL = dp.Pull(0.5, 2)


def fit(tmp_path: Path, epochs: int, save_at: int | None = None, **options: Any) -> dp.Pruner:
    """Fit with an outer iteration per epoch or as asked; save a checkpoint at the end of an epoch (from 0)."""
    module = Net()
    training = ConstrainedTraining(
        dp.ADMM(rho=PULL), budget=BUDGET, every=options.pop("every", None), network=module.network
    )
    save = L.pytorch.callbacks.LambdaCallback(
        on_train_epoch_end=lambda t, _: (
            t.save_checkpoint(tmp_path / f"{epochs}.ckpt") if t.current_epoch == save_at else None
        )
    )
    trainer(tmp_path, [training, save], max_epochs=epochs).fit(module, loader(), **options)
    return training.pruner


def asked(k: int, of: int) -> float:
    return float(PULL.start * (PULL.end / PULL.start) ** min(1, k / (of - 1)))


# 8 steps an epoch; left out, `every` gives outer iterations of four steps: 4 in 2 epochs, 12 in 6, 20 in 10 or 12
@pytest.mark.parametrize(
    ("first", "saved", "then", "every", "ended", "updates"),
    [
        (2, 1, 6, None, 4, 12),
        (4, 1, 12, None, 4, 20),
        (6, 2, 4, None, 6, 8),
        (3, 0, 4, 0.75, 1, 5),
        (3, 1, 30, 1, 2, 30),
    ],
)
def test_what_is_left_is_spread_over_the_new_length(
    tmp_path: Path, first: int, saved: int, then: int, every: float, ended: int, updates: int
) -> None:
    fit(tmp_path, first, saved, every=every)
    history = fit(tmp_path, then, every=every, ckpt_path=tmp_path / f"{first}.ckpt").history
    assert len(history) == updates
    pulls = [entry.pull for entry in history[ended:]]
    expected = [asked(k, updates) for k in range(ended, updates)]
    assert pulls[0] == pytest.approx(
        expected[0], rel=0.05
    )  # where it had begun, some steps had the earlier pull
    assert pulls[1:] == pytest.approx(expected[1:])


def test_a_finished_fit_goes_on_at_its_last_pull(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, 10, 9)
    pruner = fit(tmp_path, 15, ckpt_path=tmp_path / "10.ckpt")
    assert len(pruner.history) == 27  # 40 steps more, 6 each
    assert [entry.pull for entry in pruner.history[20:]] == pytest.approx([PULL.end] * 7, rel=0.2)
    assert "optimizer steps" not in caplog.text


def test_a_fit_of_another_length_is_killed_and_resumed(tmp_path: Path) -> None:
    fit(tmp_path, 3, 0, every=0.75)
    whole = fit(tmp_path, 5, 2, every=0.75, ckpt_path=tmp_path / "3.ckpt")
    resumed = fit(tmp_path, 5, every=0.75, ckpt_path=tmp_path / "5.ckpt")
    assert resumed.history == whole.history


class Growing(Net):
    def train_dataloader(self) -> Any:
        """Four, eight and twelve batches in the three epochs."""
        count = 32 * (self.trainer.current_epoch + 1)
        images = torch.randn(count, 1, 8, 8)
        return DataLoader(TensorDataset(images, torch.arange(count) % 4), batch_size=8)


@pytest.mark.parametrize("every", [1, 0.5])
def test_epochs_of_other_lengths_than_planned_have_their_pull(tmp_path: Path, every: float) -> None:
    module = Growing()
    training = ConstrainedTraining(
        dp.ADMM(rho=PULL), budget=BUDGET, every=every, network=module.network
    )
    trainer(tmp_path, [training], reload_dataloaders_every_n_epochs=1).fit(module)
    pulls = [entry.pull for entry in training.pruner.history]
    assert pulls == pytest.approx([asked(k, len(pulls)) for k in range(round(3 / every))])


@pytest.mark.parametrize(
    ("schedule", "every"),
    [
        ({0: 1, 1: 4}, 0.5),
        ({0: 4, 1: 1}, 0.5),
        ({0: 1, 2: 4}, None),  # five outer iterations, of which the last ones span epochs
        ({0: 1, 1: 2}, None),
        ({0: 4, 2: 1}, None),
        ({0: 2, 1: 3}, 0.75),
    ],
)
def test_scheduled_accumulation_has_its_pull(
    tmp_path: Path, schedule: dict[int, int], every: float | None
) -> None:
    module = Net()
    training = ConstrainedTraining(
        dp.ADMM(rho=PULL), budget=BUDGET, every=every, network=module.network
    )
    accumulation = GradientAccumulationScheduler(schedule)
    trainer(tmp_path, [training, accumulation], max_epochs=4).fit(module, loader())
    pulls = [entry.pull for entry in training.pruner.history]
    expected = [asked(k, len(pulls)) for k in range(len(pulls))]
    assert (pulls[0], pulls[-1]) == pytest.approx((expected[0], expected[-1]))
    # of one that spans a change the steps that are left are whole, so that their pull is rounded
    assert pulls == pytest.approx(expected, rel=0 if every == 0.5 else 0.15, abs=1e-6)
