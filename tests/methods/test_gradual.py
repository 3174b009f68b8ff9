"""Growing sparsity: gradual magnitude and dynamic pruning with feedback beside obvious references,
and the ramp of ADMM, SLR and SAS-ADMM."""

import copy

import pytest
import torch
from method_references import project_each
from torch import Tensor, nn

from core_models import (
    HALF,
    batches,
    loss_of,
    pruned_weights,
    scalars_of,
    sgd,
    small_net,
    tensors_of,
)
from detprune import (
    ADMM,
    DPF,
    NM,
    SASADMM,
    SLR,
    Budget,
    GradualMagnitude,
    InputError,
    Magnitude,
    Method,
    Pruner,
)
from detprune.methods.base import Pace, Problem
from detprune.methods.ramp import share_of_sparsity

STEPS, UPDATES, RAMP, EVERY, SPARSITY = 6, 5, 0.8, 4, 0.7
TOTAL = STEPS * UPDATES


def cubic(time: float) -> float:
    """Zhu & Gupta's equation 1 from 0 at 0 to SPARSITY at RAMP."""
    return SPARSITY + (0 - SPARSITY) * (1 - min(time, RAMP) / RAMP) ** 3


def make(method: Method) -> tuple[nn.Module, torch.optim.Optimizer, Pruner]:
    """A model under the method, with the length of its run."""
    model = small_net(torch.float64)
    optimizer = sgd(model)
    pruner = Pruner(
        model,
        optimizer,
        method,
        budget=Budget(sparsity=SPARSITY),
        steps_per_update=STEPS,
        updates=UPDATES,
    )
    return model, optimizer, pruner


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    """One plain step."""
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    optimizer.step()


def test_gradual_magnitude_masks_the_smallest_weights_for_good() -> None:
    model, optimizer, pruner = make(GradualMagnitude(ramp=RAMP, every=EVERY))
    twin = small_net(torch.float64)
    twin_optimizer = sgd(twin)
    outside = [torch.zeros_like(w, dtype=torch.bool) for w in pruned_weights(twin).values()]
    counts = []
    for t, batch in enumerate(batches(TOTAL, torch.float64), start=1):
        step(model, optimizer, batch)
        step(twin, twin_optimizer, batch)
        weights = list(pruned_weights(twin).values())
        for weight, zeros in zip(weights, outside, strict=True):
            weight[zeros] = 0
        if t % EVERY == 0:
            projected = project_each(cubic(t / TOTAL))(weights)
            chosen = [p == 0 for p in projected]
            for before, now in zip(outside, chosen, strict=True):
                assert not (before & ~now).any(), "a masked weight came back"
            outside = chosen
        for weight, zeros in zip(weights, outside, strict=True):
            weight[zeros] = 0
        for (name, ours), theirs in zip(pruned_weights(model).items(), weights, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=name)
            assert torch.equal(ours == 0, theirs == 0)
        counts.append(sum(int(z.sum()) for z in outside))
        if t % STEPS == 0:
            pruner.update(task_loss=1.0)
    assert counts == sorted(counts)
    assert len(set(counts)) == 7  # none, then after 4, 8, … 24 of 30 steps
    assert counts[-1] == sum(round(SPARSITY * w.numel()) for w in pruned_weights(model).values())


def test_dpf_takes_gradients_at_the_pruned_weights_and_moves_the_dense_ones() -> None:
    model, optimizer, pruner = make(DPF(ramp=RAMP, every=EVERY))
    dense = small_net(torch.float64)
    dense_optimizer = sgd(dense)
    kept = [torch.ones_like(w) for w in pruned_weights(dense).values()]
    returned = 0
    for t, batch in enumerate(batches(TOTAL, torch.float64), start=1):
        step(model, optimizer, batch)
        sparse = copy.deepcopy(dense)
        for weight, mask in zip(pruned_weights(sparse).values(), kept, strict=True):
            weight.mul_(mask)
        loss_of(sparse, batch).backward()
        for ours, theirs in zip(dense.parameters(), sparse.parameters(), strict=True):
            ours.grad = theirs.grad
        dense_optimizer.step()
        weights = list(pruned_weights(dense).values())
        if t % EVERY == 0:
            chosen = [
                (p != 0).to(p.dtype)
                for p in project_each(cubic(t / TOTAL))([w.clone() for w in weights])
            ]
            returned += sum(
                int(((new == 1) & (old == 0)).sum()) for new, old in zip(chosen, kept, strict=True)
            )
            kept = chosen
        for (name, ours), theirs in zip(model.named_parameters(), dense.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=name)
        if t % STEPS == 0:
            pruner.update(task_loss=1.0)
    assert returned > 0, "nothing ever came back: the feedback is not tested"
    for ours, theirs in zip(tensors_of(pruner, "kept").values(), kept, strict=True):
        assert torch.equal(ours, theirs.bool())
    assert all((w != 0).all() for w in pruned_weights(model).values())


@pytest.mark.parametrize(
    "method",
    [ADMM(rho=0.1, ramp=0.6), SLR(rho=0.1, ramp=0.6), SASADMM(ramp=0.6, inner_steps=STEPS)],
    ids=["admm", "slr", "sas_admm"],
)
def test_the_target_of_a_ramp_grows_to_the_whole_sparsity(method: Method) -> None:
    _, _, pruner = make(method)
    numels = [w.numel() for w in pruned_weights(pruner.model).values()]
    for k in range(UPDATES + 1):
        share = 1 - (1 - min((k + 1) / UPDATES, 0.6) / 0.6) ** 3
        zeros = [int((z == 0).sum()) for z in tensors_of(pruner, "target").values()]
        kept = [max(1, round((1 - share * SPARSITY) * n)) for n in numels]
        assert zeros == [n - k for n, k in zip(numels, kept, strict=True)], k
        assert (zeros == [n - max(1, round((1 - SPARSITY) * n)) for n in numels]) is (k >= 2)
        pruner.update(task_loss=1.0)
    pruner.hard_prune()
    assert pruner.summary().sparsity == pytest.approx(SPARSITY, abs=0.01)


def test_the_ramp_of_sas_admm_counts_the_steps_of_inner_loops_that_grow() -> None:
    method = SASADMM(ramp=0.5, inner_steps=4, k0=2)
    pace = Pace([], steps_per_update=STEPS, updates=20)
    lengths = [method.planned_steps(k) for k in range(1, 8)]
    assert lengths[-1] > 3 * lengths[0]
    shares = [method.share_of_sparsity(k, pace) for k in range(6)]
    done = [sum(lengths[: k + 1]) / (20 * STEPS) for k in range(6)]
    assert shares == [share_of_sparsity(0.5, progress) for progress in done]


def test_without_a_ramp_the_share_is_one_from_the_start() -> None:
    assert share_of_sparsity(0.0, 0.0) == 1.0
    assert share_of_sparsity(0.5, 0.0) == 0.0
    assert share_of_sparsity(0.5, 0.25) == pytest.approx(0.875)
    assert share_of_sparsity(0.5, 0.5) == share_of_sparsity(0.5, 1.0) == 1.0


@pytest.mark.parametrize(("method", "choices"), [(GradualMagnitude, 6), (DPF, 7)])
def test_nothing_is_chosen_once_all_is_masked_for_good(
    method: type[GradualMagnitude | DPF], choices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer, _ = make(method(ramp=RAMP, every=EVERY))
    chosen, masks = [], Problem.masks
    monkeypatch.setattr(Problem, "masks", lambda *a: chosen.append(1) or masks(*a))
    for batch in batches(TOTAL, torch.float64):
        step(model, optimizer, batch)
    assert len(chosen) == choices  # the ramp ends at step 24, the steps at 30


def test_gradual_magnitude_without_a_ramp_never_lets_a_weight_return() -> None:
    model, optimizer, pruner = make(GradualMagnitude(ramp=0.0))
    first = {n: kept.clone() for n, kept in tensors_of(pruner, "kept").items()}
    for batch in batches(20, torch.float64):
        step(model, optimizer, batch)
    for name, weight in pruned_weights(model).items():
        assert torch.equal(weight != 0, first[name])
    assert scalars_of(pruner)["t"] == 20


@pytest.mark.parametrize(
    "method",
    [GradualMagnitude(), DPF(), ADMM(rho=0.1, ramp=0.5), SLR(rho=0.1, ramp=0.5), SASADMM(ramp=0.5)],
)
def test_a_ramp_needs_the_length_of_the_run(method: Method) -> None:
    model = small_net()
    with pytest.raises(InputError, match=r"ramp is a share of the run.*updates=.*ramp=0"):
        Pruner(model, sgd(model), method, budget=HALF)


@pytest.mark.parametrize(
    "method", [GradualMagnitude(), DPF(), ADMM(rho=0.1, ramp=0.5), SASADMM(ramp=0.5)]
)
def test_a_ramp_is_refused_where_the_structure_fixes_the_sparsity(method: Method) -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    with pytest.raises(InputError, match=r"NM\(n=2, m=4\) always has 0.5; leave the ramp out"):
        Pruner(model, sgd(model), method, NM(2, 4), steps_per_update=3, updates=3)


@pytest.mark.parametrize(
    ("make_method", "problem"),
    [
        (
            lambda: ADMM(rho=0.1, ramp=1.5),
            r"ADMM: ramp is 1.5, allowed is a share of the run from 0",
        ),
        (lambda: DPF(ramp=-0.1), r"DPF: ramp is -0.1, allowed"),
        (lambda: SASADMM(ramp=0.5, l1=0.1), r"ramp is 0.5 and l1 is 0.1; .* leave one of them out"),
        (
            lambda: GradualMagnitude(every=0),
            r"GradualMagnitude: every is 0, allowed is a whole number of steps",
        ),
    ],
)
def test_options_out_of_range(make_method: object, problem: str) -> None:
    assert callable(make_method)
    with pytest.raises(InputError, match=problem):
        make_method()


def test_magnitude_lets_weights_return_where_gradual_does_not() -> None:
    """What tells the two baselines apart: with the whole sparsity at once, only one changes its support."""
    changed = {}
    for method in (Magnitude(), GradualMagnitude(ramp=0.0, every=1)):
        model, optimizer, _ = make(method)
        first = {n: w.clone() != 0 for n, w in pruned_weights(model).items()}
        for index, batch in enumerate(batches(40, torch.float64)):
            step(model, optimizer, batch)
            if index == 0:
                first = {n: w.clone() != 0 for n, w in pruned_weights(model).items()}
        changed[type(method).__name__] = sum(
            int(((w != 0) != first[n]).sum()) for n, w in pruned_weights(model).items()
        )
    assert changed["GradualMagnitude"] == 0
    assert changed["Magnitude"] > 0


@pytest.mark.parametrize("method", [GradualMagnitude, DPF])
@pytest.mark.parametrize(
    ("every", "ramp", "said"),
    [
        (64, 0.75, "0% of the sparsity in 0 choices"),
        (35, 0.75, ""),
        (15, 1.0, ""),
        (25, 1.0, "95% of the sparsity in 1 choices"),
        (4, 0.75, ""),
        (64, 0.0, ""),
    ],
)
def test_masks_that_are_chosen_too_seldom_are_told_at_the_first_step(
    method: type[GradualMagnitude | DPF],
    every: int,
    ramp: float,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    weight = torch.nn.Linear(8, 8)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.1)
    pruner = Pruner(
        weight,
        optimizer,
        method(ramp=ramp, every=every),
        budget=Budget(sparsity=0.5),
        steps_per_update=10,
        updates=4,
    )
    for _ in range(2):
        optimizer.zero_grad()
        weight(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    pruner.detach()
    told = [
        record.getMessage() for record in caplog.records if "chooses its masks" in record.message
    ]
    assert len(told) == bool(said)
    assert all(said in text for text in told)
