"""The public contract checks: what the project ships passes them, and what is broken does not."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import detprune as dp
from detprune.methods import METHODS
from detprune.run.adapter import implementation
from detprune.run.metrics import Metric
from detprune.sets import SETS, GroupSet
from detprune.testing import check_adapter, check_method, check_set

TINY = {
    "task": "classification",
    "name": "tiny",
    "model": {"name": "cifar_resnet20"},
    "data": {"name": "digits", "batch_size": 32, "train_limit": 64, "test_limit": 50},
    "method": {"name": "admm", "rho": 0.1},
    "budget": {"compression": 4},
    "measure": False,
    "batch_norm_images": 32,
    "stages": {stage: {"epochs": 1} for stage in ("dense", "constrained", "retrain")},
}


@pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
def test_every_method_passes(kind: type[dp.Method]) -> None:
    check_method(kind())


@pytest.mark.parametrize("name", SETS)
def test_every_set_passes(name: str) -> None:
    needed = {"n_m": (2, 4), "block": (4, 4)}
    check_set(SETS[name](*needed.get(name, ())))


@pytest.mark.slow
def test_the_classification_adapter_passes(tmp_path: Path) -> None:
    check_adapter(implementation("classification"), TINY, tmp_path)


@dataclass(frozen=True)
class Forgetful(dp.ADMM):
    """Counts its steps where no file has them."""

    def start(self, problem: Any, pace: Any) -> Any:
        state = super().start(problem, pace)
        state.steps = 0
        return state

    def after_step(self, problem: Any, state: Any) -> None:
        state.steps += 1
        with torch.no_grad():
            problem.weights[0].add_(1e-3 * state.steps)


@dataclass(frozen=True)
class Trusting(dp.Magnitude):
    """Takes what is not a number."""

    def end_outer_iteration(self, problem: Any, state: Any, task_loss: Any, pace: Any) -> Any:
        state.k += 1
        return dp.OuterIteration(k=state.k, task_loss=task_loss)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (
            Forgetful(),
            "saved after 8 steps of 4 an outer iteration, loaded and continued, 0.weight differs",
        ),
        (Trusting(), r"update\(\) accepts a weight that is NaN"),
    ],
    ids=["forgetful", "trusting"],
)
def test_a_broken_method_is_told_what_is_wrong(method: dp.Method, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_method(method)


@dataclass(frozen=True)
class Smallest(GroupSet):
    """Keeps the smallest."""

    def scores(self, weight: Tensor) -> Tensor:
        return 1 / (1 + weight.square())

    def spread(self, groups: Tensor, weight: Tensor) -> Tensor:
        return groups


@dataclass(frozen=True)
class Threshold(dp.SparsitySet):
    """Keeps what exceeds a quantile: of equal weights, nothing."""

    def supports(self, weights: Any, sparsities: Any) -> list[Tensor]:
        return [w.abs() > w.abs().quantile(s) for w, s in zip(weights, sparsities, strict=True)]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Smallest(), "a second projection gives another point"),
        (Threshold(), "nothing is kept where all weights are equal"),
    ],
    ids=["smallest", "threshold"],
)
def test_a_broken_set_is_told_what_is_wrong(broken: dp.SparsitySet, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_set(broken)


def test_an_adapter_that_draws_while_it_measures_is_told_so(tmp_path: Path) -> None:
    found = implementation("classification")

    def noisy(recipe: Any, run: Any) -> Any:
        task = found.task(recipe, run)

        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"accuracy": 0.5 + 0 * float(torch.rand(()))}

        task.evaluate = evaluate  # type: ignore[method-assign]
        return task

    with pytest.raises(AssertionError, match=r"evaluate\(\) has drawn random numbers"):
        check_adapter(replace(found, task=noisy), TINY, tmp_path)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (Metric("error"), "error is 2.5, and has to be a share from 0 to 1"),
        # of another unit and direction: the next check is reached
        (Metric("error", per_cent=False, higher_is_better=False), "has drawn random numbers"),
    ],
    ids=["share", "error"],
)
def test_a_metric_is_checked_by_its_unit(metric: Metric, said: str, tmp_path: Path) -> None:
    found = implementation("classification")

    def measured(recipe: Any, run: Any) -> Any:
        task = found.task(recipe, run)
        task.metrics = (metric,)  # type: ignore[misc]

        def evaluate(model: nn.Module) -> dict[str, float]:
            return {"error": 2.5 + 0 * float(torch.rand(()))}

        task.evaluate = evaluate  # type: ignore[method-assign]
        return task

    with pytest.raises(AssertionError, match=said):
        check_adapter(replace(found, task=measured), TINY, tmp_path)
