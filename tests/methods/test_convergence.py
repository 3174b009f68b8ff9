"""Every method that optimises under the constraint, on a problem whose solution is known."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from detprune import ADMM, SASADMM, SLR, Budget, Filter, Magnitude, Method, Pruner


def run_quadratic(
    method: Method, optimizer_options: dict[str, float], outer: int, structured: bool = False
) -> tuple[Pruner, Tensor]:
    """min ½‖X(W − T)‖² for a sparse T, from a start that has another support; returns T too."""
    inputs = torch.eye(12, dtype=torch.float64) + 0.1 * torch.randn(12, 12, dtype=torch.float64)
    model = nn.Linear(12, 10, bias=False).double()
    mask = torch.zeros(10, 12, dtype=torch.bool)
    if structured:
        mask[[1, 4, 8]] = True
    else:
        mask.view(-1)[torch.randperm(120)[:36]] = True
    solution = mask * (1 + torch.rand(10, 12)).double() * (1 - 2 * torch.randint(2, (10, 12)))
    with torch.no_grad():
        model.weight.copy_(torch.randn(10, 12) * (1 - 0.9 * mask))
    optimizer = torch.optim.SGD(model.parameters(), **optimizer_options)
    sparsity_set = Filter() if structured else None
    pruner = Pruner(model, optimizer, method, sparsity_set, Budget(sparsity=0.7))
    start = pruner.hard_pruned_copy().get_parameter("weight")
    assert (start[mask] == 0).float().mean() > 0.5, "the start has the solution's support already"
    for _ in range(outer):
        for _ in range(10):
            optimizer.zero_grad()
            loss = 0.5 * (model(inputs) - inputs @ solution.T).square().sum()
            loss.backward()
            optimizer.step()
            pruner.observe(loss)
        pruner.update()
    return pruner, solution


MOMENTUM = {"lr": 0.1, "momentum": 0.5}


@pytest.mark.parametrize(
    ("method", "options", "outer"),
    [
        (Magnitude(), {"lr": 0.5}, 60),  # a smaller step cannot lift a new weight over the others
        (ADMM(rho=0.5), MOMENTUM, 60),
        (SLR(rho=0.5, step_size=1e-4), MOMENTUM, 20),
        (SASADMM(beta=0.5, nu=4, inner_steps=10), MOMENTUM, 60),
        (SASADMM(beta=0.5, nu=4, inner_steps=10, average_from=30), MOMENTUM, 60),
    ],
    ids=["magnitude", "admm", "slr", "sas_admm", "sas_admm averaged"],
)
@pytest.mark.parametrize("structured", [False, True])
def test_converges_on_a_known_quadratic(
    method: Method, options: dict[str, float], outer: int, structured: bool
) -> None:
    pruner, solution = run_quadratic(method, options, outer, structured)
    residuals = [entry.residual_norm for entry in pruner.history]
    assert residuals[0] is not None
    assert residuals[-1] is not None
    assert residuals[-1] <= 0.05 * residuals[0]
    pruner.hard_prune()
    weight = pruner.model.get_parameter("weight").detach()
    assert torch.equal(weight != 0, solution != 0)
    assert float((weight - solution).norm() / solution.norm()) < 0.01


def multiplier_moves(method: Method) -> list[float]:
    """s·‖R‖ of the multiplier updates that end outer iterations."""
    pruner, _ = run_quadratic(method, MOMENTUM, outer=60)
    return [
        (entry.step_size or 0.0) * (entry.residual_norm or 0.0)
        for entry in pruner.history
        if entry.condition_8
    ]


def test_the_consistent_step_lets_multipliers_move_less_each_time_and_the_printed_does_not() -> (
    None
):
    moves = multiplier_moves(SLR(rho=0.1, step_size=0.01))
    assert len(moves) > 20
    assert all(late <= early for early, late in itertools.pairwise(moves))
    printed = multiplier_moves(SLR(rho=0.1, step_size=0.01, step_rule="printed"))
    assert max(printed) > 100 * printed[0]


def test_slr_stays_at_the_solution_of_a_quadratic() -> None:
    pruner, solution = run_quadratic(SLR(rho=0.1, step_size=0.01), MOMENTUM, outer=60)
    weight = pruner.model.get_parameter("weight").detach()
    assert float((weight - solution).norm() / solution.norm()) < 0.1


def test_slr_with_a_bounded_step_stays_there() -> None:
    method = SLR(rho=0.1, step_size=0.01, max_step=1.0, step_rule="printed")
    pruner, solution = run_quadratic(method, MOMENTUM, outer=60)
    weight = pruner.model.get_parameter("weight").detach()
    assert float((weight - solution).norm() / solution.norm()) < 1e-4
