# SPDX-License-Identifier: AGPL-3.0-or-later
"""Settings of a trainer for one stage."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from detprune.methods import SLR
from detprune.networks.batch_norm import BATCH_NORM_IMAGES
from detprune.run.recipe import BudgetField, MethodField, Section, SetField
from detprune.sets import Unstructured

Stage = Literal["dense", "constrained", "retrain"]


class StageSettings(Section):
    """One stage of training.

    Attributes:
        stage: name of the stage; events and seeds depend on it.
        method, set, budget: as for ``detprune.Pruner``, for constrained training.
        every: epochs per outer iteration; 0.5 makes two an epoch. Left out, an outer iteration is one epoch; in
            runs of fewer than 20 epochs there are 20. SAS-ADMM has an inner loop of its own instead.
        check_every: epochs between measurements of the headline metric after hard pruning, on a copy; 0: none.
        stop_at: value of the headline metric after hard pruning at which constrained training ends early.
        prune: which weights are hard-pruned at the end: Ultralytics' moving average (``ema``), which
            is what it validates and saves, or those that the optimizer moves (``live``).
        batch_norm_images: training images from which the batch-norm statistics of a hard-pruned network are
            estimated anew; 0: they stay those of constrained training.
        teacher: checkpoint of the dense detector that teaches the stage; left out, there is no teacher.
        teacher_weight: share of the teacher's term in the loss.
        annotations: COCO annotations of the validation images, for the checks.
        run_dir: run directory in which events are logged; left out, they are not.
        resume: continue from the sidecar if there is one.
    """

    stage: Stage = "constrained"
    method: MethodField = SLR()
    set: SetField = Unstructured()
    budget: BudgetField | None = None
    every: float | None = Field(default=None, gt=0)
    check_every: int = Field(default=0, ge=0)
    stop_at: float | None = Field(default=None, gt=0, le=1)
    prune: Literal["ema", "live"] = "ema"
    batch_norm_images: int = Field(default=BATCH_NORM_IMAGES, ge=0)
    teacher: Path | None = None
    teacher_weight: float = Field(default=0.5, gt=0, le=1)
    annotations: Path | None = None
    run_dir: Path | None = None
    resume: bool = False


@contextmanager
def own_modules() -> Iterator[None]:
    """Keep the processes that are started in the block from importing modules of the working directory.

    Ultralytics starts its own with ``python -m``, which looks there first: a torch.py would run.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
