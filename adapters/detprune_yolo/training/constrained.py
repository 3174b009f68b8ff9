"""For somebody who already calls ``YOLO(...).train(...)``: the trainers, told what to prune."""

from detprune.budgets import Budget
from detprune.methods import Method
from detprune.sets import SparsitySet, Unstructured
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.trainers import ConstrainedTrainer


def constrained(
    method: Method,
    budget: Budget,
    sparsity_set: SparsitySet | None = None,
    *,
    every: int = 1,
    check_every: int = 0,
    stop_at: float | None = None,
    prune: str = "ema",
) -> type[ConstrainedTrainer]:
    """The trainer for constrained training: ``model.train(trainer=constrained(SLR(), Budget(compression=3.33)), …)``.

    The settings also reach the processes that Ultralytics starts on several GPUs. The training
    leaves ``weights/hard_pruned.pt``, from which ``trainer=RetrainingTrainer`` retrains.

    Args:
        method, budget, sparsity_set: as for ``detprune.Pruner``.
        every: epochs per outer iteration.
        check_every: epochs between measurements of what hard pruning would give; 0 for none.
        stop_at: stop once that mAP@0.5 reaches this.
        prune: hard-prune Ultralytics' moving average (``"ema"``) or the live weights (``"live"``).
    """
    StageSettings(
        stage="constrained",
        method=method,
        set=sparsity_set if sparsity_set is not None else Unstructured(),
        budget=budget,
        every=every,
        check_every=check_every,
        stop_at=stop_at,
        prune=prune,  # type: ignore[arg-type]
    ).put()
    return ConstrainedTrainer
