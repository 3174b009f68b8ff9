"""Ultralytics gives up its recovery from NaN: an error of ours, which a run tells with the stage's name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import start_file, trainer_of

from detprune.errors import NonFiniteError

# isort: split
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.settings import StageSettings


def failing(tmp_path: Path) -> Any:
    """A trainer in its second epoch, whose loss is NaN."""
    start = start_file(tmp_path)
    trainer: Any = trainer_of(ResumableTrainer, StageSettings(stage="dense"), start, tmp_path)
    trainer.loss, trainer.fitness = torch.tensor(float("nan")), None
    trainer.start_epoch, trainer.nan_recovery_attempts = 0, 0
    return trainer


def test_after_its_last_attempt(tmp_path: Path) -> None:
    trainer = failing(tmp_path)
    trainer.last.parent.mkdir(parents=True, exist_ok=True)
    trainer.last.touch()
    trainer.nan_recovery_attempts = 3
    with pytest.raises(NonFiniteError, match=r"diverged \(Training failed: NaN persisted for 4"):
        trainer._handle_nan_recovery(1)


def test_without_a_checkpoint_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"diverged \(Loss NaN/Inf detected but no valid"):
        failing(tmp_path)._handle_nan_recovery(1)
