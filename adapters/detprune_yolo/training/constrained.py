# SPDX-License-Identifier: AGPL-3.0-or-later
"""Trainers for code that calls ``YOLO(...).train(...)`` itself: constrained training, masked retraining."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from detprune.binding.checks import check_choice
from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.budget_checks import latency_table
from detprune.channels.coupled import call
from detprune.errors import InputError
from detprune.files.contents import named_path
from detprune.methods import Method
from detprune.networks.batch_norm import BATCH_NORM_IMAGES
from detprune.sets import SparsitySet
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.trainers import ConstrainedTrainer, RetrainingTrainer
from detprune_yolo.weights.checkpoints import load_model

P = ParamSpec("P")
T = TypeVar("T")


def _called_with(arguments: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Refuse what Ultralytics passes to a trainer: then the function itself was given as the trainer."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def checked(*args: P.args, **options: P.kwargs) -> T:
            if "overrides" in options:
                name = function.__name__
                raise InputError(
                    f"trainer={name} is the function that makes a trainer, not a trainer; call it: "
                    f"trainer={name}({arguments})"
                )
            return function(*args, **options)

        return checked

    return decorate


@_called_with("SLR(), Budget(compression=3.33)")
def constrained(
    method: Method,
    budget: Budget,
    sparsity_set: SparsitySet | None = None,
    *,
    every: float | None = None,
    check_every: int = 0,
    stop_at: float | None = None,
    prune: str = "ema",
    batch_norm_images: int = BATCH_NORM_IMAGES,
    teacher: str | Path | None = None,
    teacher_weight: float = 0.5,
) -> type[ConstrainedTrainer]:
    """The trainer for constrained training: ``model.train(trainer=constrained(SLR(), Budget(compression=3.33)), …)``.

    The class carries the settings, also to the processes that Ultralytics starts on several GPUs. It trains networks
    of every task that can be pruned; the model says which. The training leaves ``weights/hard_pruned.pt``, from which
    ``trainer=RetrainingTrainer`` retrains. With ``sparsity_set=CoupledChannels(), budget=Budget(macs=0.5)`` it also
    leaves ``weights/shrunk.pt``, the network without the channels that are zero, which the same trainer retrains.

    Args:
        method, budget, sparsity_set: as for ``detprune.Pruner``.
        every: epochs per outer iteration; 0.5 updates Z and the multipliers twice an epoch. Left out: one per
            epoch, and in runs of fewer than 20 epochs 20.
        check_every: epochs between measurements of what hard pruning would give; 0 for none.
        stop_at: stop once that reaches this: mAP@0.5 of boxes, masks or poses, or top-1 accuracy.
        prune: hard-prune Ultralytics' moving average (``"ema"``) or the live weights (``"live"``).
        batch_norm_images: training images from which batch-norm statistics are estimated anew after hard
            pruning, before it is measured or saved; no weight moves; 0 for none.
        teacher: checkpoint of a detector that teaches, such as the one from which training starts.
        teacher_weight: its share in the loss; the labels have the rest.
    """
    method, chosen, budget = check_choice(method, sparsity_set, budget)
    method.check_set(chosen)
    if isinstance(chosen, CoupledChannels) and not (
        chosen.example_inputs is None and chosen.forward is call
    ):
        raise InputError(
            "CoupledChannels was given example_inputs or forward; leave them out: "
            "the trainer takes an image of imgsz, and the raw predictions of the head"
        )
    latency_table(budget)  # before anything is trained
    taught = None if teacher is None else _teacher(teacher)
    settings = StageSettings(
        stage="constrained",
        method=method,
        set=chosen,
        budget=budget,
        every=every,
        check_every=check_every,
        stop_at=stop_at,
        prune=prune,  # type: ignore[arg-type]
        batch_norm_images=batch_norm_images,
        teacher=taught,
        teacher_weight=teacher_weight,
    )
    return ConstrainedTrainer.told(settings)


@_called_with("teacher='best.pt'")
def retraining(teacher: str | Path, teacher_weight: float = 0.5) -> type[RetrainingTrainer]:
    """The trainer for masked retraining with a teacher; without a teacher, use ``RetrainingTrainer`` itself.

    Args:
        teacher: checkpoint of the dense detector.
        teacher_weight: its share in the loss; the labels have the rest.
    """
    settings = StageSettings(
        stage="retrain", teacher=_teacher(teacher), teacher_weight=teacher_weight
    )
    return RetrainingTrainer.told(settings)


def _teacher(given: object) -> Path:
    """The absolute path of a teacher, which is opened before anything is trained."""
    path = named_path(given, "give the checkpoint of the dense detector")
    load_model(path)
    return path.absolute()
