# SPDX-License-Identifier: AGPL-3.0-or-later
"""One stage of a run, as one call of Ultralytics' ``train()``."""

import gc
from collections.abc import Mapping
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from detprune.errors import DetpruneError, InputError
from detprune.run.directory import RunDirectory
from detprune_yolo.training.resumable import ResumableTrainer
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.sidecar import read_sidecar
from detprune_yolo.weights.checkpoints import load_model


def run_stage(
    kind: type[ResumableTrainer],
    settings: StageSettings,
    start: Path,
    run: RunDirectory,
    options: Mapping[str, Any],
) -> Path:
    """Run Ultralytics' trainer for a stage, or the rest of the stage after an interruption.

    Args:
        kind: the trainer of the stage.
        settings: settings of the trainer; this function adds run directory and resume.
        start: the file with which the stage begins.
        run: has the stage's folder, ``checkpoints/<stage>``.
        options: of Ultralytics' ``train()``.

    Returns:
        The folder of the weights that it leaves.
    """
    stage, folder = settings.stage, run.checkpoints / settings.stage
    weights = folder / "weights"
    state = read_sidecar(weights)
    if state is not None and state["done"]:
        _check_readable(weights / "best.pt", folder)
        return weights
    settings = settings.model_copy(update={"run_dir": run.path.absolute(), "resume": True})
    overrides = {
        **options,
        "model": str(start.absolute() if start.exists() else start),
        "project": str(run.checkpoints.absolute()),
        "name": stage,
        "exist_ok": True,
    }
    resumed = state is not None
    if state is not None:
        overrides["batch"] = state["batch"]  # it is smaller than the recipe's if memory ran out
    del state
    trainer = kind.told(settings)(overrides=overrides)
    trainer.resume = resumed  # else Ultralytics empties the folder before it trains on several GPUs
    try:
        trainer.train()
    except CalledProcessError as error:
        raise DetpruneError(
            f"{stage} training failed in one of several processes; its error stands above"
        ) from error
    del trainer
    gc.collect()
    return weights


def _check_readable(path: Path, folder: Path) -> None:
    """Check that Ultralytics' file is whole; a kill may have come while it was rewritten after the last epoch."""
    try:
        load_model(path)
    except InputError as error:
        raise InputError(
            f"{error}; delete {folder} and resume, to train this stage again"
        ) from error
