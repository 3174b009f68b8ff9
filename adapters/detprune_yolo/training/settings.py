# SPDX-License-Identifier: AGPL-3.0-or-later
"""What a trainer is to do in one stage."""

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
        stage: names events and seeds.
        method, set, budget: of constrained training, as for ``detprune.Pruner``.
        every: epochs per outer iteration, 0.5 for two an epoch; left out, one per epoch, and in runs of fewer
            than 20 epochs 20. SAS-ADMM has an inner loop of its own instead.
        check_every: epochs between measurements of what hard pruning would give; 0 for none.
        stop_at: stop constrained training once that mAP@0.5 is reached.
        prune: which weights are hard-pruned at the end: Ultralytics' moving average (``ema``), which
            is what it validates and saves, or those that the optimizer moves (``live``).
        batch_norm_images: training images from which the batch-norm statistics of a hard-pruned network are
            estimated anew; 0: they stay those of constrained training.
        teacher: checkpoint of the dense detector that teaches the stage; nobody does if left out.
        teacher_weight: share of the teacher in the loss.
        annotations: COCO annotations of the validation images, for the checks.
        run_dir: where events are logged; nowhere if left out.
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
    """Let the processes that are started in the block take no modules from the working directory.

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
