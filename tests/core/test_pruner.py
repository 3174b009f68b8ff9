"""The pruner as its users see it: loop, log, errors, copies, figures, what loading refuses."""

import copy
import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from core_models import (
    HALF,
    HALVES,
    METHOD_EXAMPLES,
    assert_same,
    batches,
    loss_of,
    pruned_weights,
    sgd,
    small_net,
    snapshot,
    tensors_of,
    train,
    zeros_in,
)
from detprune import (
    ADMM,
    SASADMM,
    SLR,
    Budget,
    Filter,
    InputError,
    Method,
    OneShot,
    Pruner,
)

every_method = pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)


def test_the_loop_of_the_readme_works() -> None:
    model = small_net()
    optimizer = sgd(model)
    data = batches(4)
    pruner = Pruner(
        model,
        optimizer,
        method=SLR(rho="auto"),
        budget=Budget(compression=4),
        steps_per_update=4,
        updates=6,
    )
    for _ in range(6):
        for batch in data:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            pruner.observe(loss)
        pruner.update()
    pruner.hard_prune()
    assert pruner.summary().compression == pytest.approx(4)
    train(model, optimizer, data, pruner)
    assert pruner.summary().compression == pytest.approx(4)
    assert pruner.masks is not None
    assert {name: int((~mask).sum()) for name, mask in pruner.masks.items()} == zeros_in(
        pruned_weights(model)
    )


@every_method
def test_history_says_what_happened(method: Method) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    losses = []
    for batch in batches(6):
        train(model, optimizer, [batch], pruner)
        pruner.observe(1.0)  # numbers count like tensors
        losses.append(pruner.update().task_loss)
    assert [entry.k for entry in pruner.history] == [1, 2, 3, 4, 5, 6]
    assert [entry.task_loss for entry in pruner.history] == losses
    last, weights = pruner.history[-1], pruned_weights(model)
    if isinstance(method, ADMM | SLR | SASADMM):
        targets = tensors_of(pruner, "target")
        gap = math.sqrt(sum(float((weights[n] - z).square().sum()) for n, z in targets.items()))
        size = math.sqrt(sum(float(w.square().sum()) for w in weights.values()))
        assert last.residual_norm == pytest.approx(gap, rel=1e-5)
        assert last.relative_residual == pytest.approx(gap / size, rel=1e-5)
        assert last.rho == 0.05
        assert last.penalty is not None
        assert last.target_change is not None
    assert (last.step_size is not None) is isinstance(method, SLR)
    assert (last.condition_3 is not None) is isinstance(method, SLR)
    assert (last.condition_8 is not None) is isinstance(method, SLR)


def test_the_mean_of_the_observed_losses_starts_anew_after_an_update() -> None:
    pruner = Pruner(small_net(), None, SLR(rho=0.1), budget=HALF)
    for loss in (1.0, torch.tensor(2.0, requires_grad=True), torch.tensor(6.0)):
        pruner.observe(loss)
    assert pruner.update().task_loss == 3.0
    pruner.observe(5.0)
    assert pruner.update().task_loss == 5.0
    with pytest.raises(
        InputError,
        match=r"SLR compares the task loss of outer iterations, but none was seen; call "
        r"pruner\.observe\(loss\) after every step, or update\(task_loss=…\)",
    ):
        pruner.update()
    assert len(pruner.history) == 2
    admm = Pruner(small_net(), None, ADMM(rho=0.1), budget=HALF)
    assert admm.update().task_loss is None


@pytest.mark.parametrize("measured", [(False, True, False), (True, False, True), (True, True), ()])
def test_losses_of_two_kinds_are_not_compared_in_silence(
    measured: tuple[bool, ...], caplog: pytest.LogCaptureFixture
) -> None:
    pruner = Pruner(small_net(), None, SLR(rho=0.1), budget=HALF)
    with caplog.at_level(logging.WARNING, "detprune"):
        for elsewhere in measured:
            pruner.observe(1.0)
            pruner.update(task_loss=3.0) if elsewhere else pruner.update()
    told = [
        r.message for r in caplog.records if "in every outer iteration, or in none" in r.message
    ]
    assert len(told) == (len(set(measured)) == 2)  # once


def test_a_method_that_compares_no_losses_takes_both_kinds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admm = Pruner(small_net(), None, ADMM(rho=0.1), budget=HALF)
    admm.observe(1.0)
    admm.update()
    admm.update(task_loss=3.0)
    assert not caplog.records


@every_method
def test_nothing_is_updated_after_hard_pruning(method: Method) -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), method, budget=HALF)
    assert pruner.masks is None
    pruner.hard_prune()
    pruned = snapshot(model)
    with pytest.raises(InputError, match=r"update\(\) was called after hard_prune\(\); there is"):
        pruner.update(task_loss=1.0)
    assert pruner.due is False
    pruner.hard_prune()  # again: nothing to do
    assert_same(snapshot(model), pruned)
    assert pruner.state_dict()["state"]["tensors"] == {}, "the method's tensors are freed"


# -------------------------------------------------------------------- copies and figures


@every_method
@pytest.mark.parametrize("pruned", [False, True])
def test_hard_pruned_copy_leaves_training_alone(method: Method, pruned: bool) -> None:
    runs = []
    for checked in (True, False):
        model = small_net()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        pruner = Pruner(model, optimizer, method, budget=HALF)
        train(model, optimizer, batches(7), pruner, update_every=3)
        if pruned:
            pruner.hard_prune()
        if checked:
            before = snapshot(model), copy.deepcopy(optimizer.state_dict()), torch.get_rng_state()
            clone = pruner.hard_pruned_copy()
            assert_same(snapshot(model), before[0])
            assert torch.equal(torch.get_rng_state(), before[2])
            for index, state in optimizer.state_dict()["state"].items():
                assert_same(state, before[1]["state"][index])
            assert zeros_in(pruned_weights(clone)) == {
                "0.weight": 36,
                "4.weight": 256,
                "6.weight": 12,
            }
            loss_of(clone, batches(1)[0]).backward()
            copied = snapshot(clone)
        train(model, optimizer, batches(5, seed=9), pruner)
        if not pruned:
            pruner.update(task_loss=1.0)
        runs.append(snapshot(model))
    assert_same(runs[0], runs[1])
    assert not torch.equal(copied["4.weight"], runs[0]["4.weight"])


@every_method
def test_hard_pruned_copy_is_what_hard_prune_makes(method: Method) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, batches(7), pruner, update_every=3)
    dense, zeros = snapshot(model), zeros_in(pruned_weights(model))
    clone = pruner.hard_pruned_copy()
    pruner.hard_prune()
    assert_same(snapshot(clone), snapshot(model))
    changed = {n for n, value in snapshot(model).items() if not torch.equal(value, dense[n])}
    assert zeros_in(pruned_weights(model)) == HALVES
    assert changed == {n for n, half in HALVES.items() if zeros[n] < half}  # not yet in the set


def test_summary_counts_over_pruned_tensors_and_over_the_model() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    budget = Budget(sparsity=0.75, exclude=["3"])
    pruner = Pruner(model, None, OneShot(), Filter(), budget)
    dense = pruner.summary()
    assert (dense.sparsity, dense.compression) == (0.0, 1.0)
    pruner.hard_prune()
    summary = pruner.summary()
    # 72 weights of the convolution, 4 biases, 4 + 4 of the norm (4 zeros at the start), 8 + 2
    assert (summary.numel, summary.nonzero) == (72, 18)
    assert (summary.model_numel, summary.model_nonzero) == (94, 36)
    assert (summary.sparsity, summary.compression) == (0.75, 4.0)
    assert summary.model_sparsity == pytest.approx(58 / 94)
    assert summary.model_compression == pytest.approx(94 / 36)
    assert [(row.name, row.shape, row.target) for row in summary.layers] == [
        ("0.weight", (4, 2, 3, 3), 0.75),
        ("3.weight", (2, 4), None),
    ]
    assert [row.sparsity for row in summary.layers] == [0.75, 0.0]
    assert summary.pruned == summary.layers[:1]
    text = str(summary)
    for part in ("pruned tensors", "all parameters", "4×2×3×3", "4.00×", "2.61×", "dense"):
        assert part in text
    with torch.no_grad():
        model[0].weight.zero_()
    assert pruner.summary().compression == math.inf


# -------------------------------------------------------------------- what loading refuses


def test_states_of_something_else_are_refused() -> None:
    state = Pruner(small_net(), None, ADMM(rho=0.1), budget=HALF).state_dict()
    cases = [
        (
            Pruner(small_net(), None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, exclude=["0"])),
            r"other layers: missing \[\], extra \['0\.weight'\]; use the model, include and",
        ),
        (
            Pruner(small_net(), None, SLR(rho=0.1), budget=HALF),
            r"is of method 'admm', but this pruner runs 'slr'; use the method it was saved with",
        ),
    ]
    for pruner, message in cases:
        before = copy.deepcopy(pruner.state_dict())
        with pytest.raises(InputError, match=message):
            pruner.load_state_dict(state)
        assert str(pruner.state_dict()) == str(before)

    wider = small_net()
    wider[4] = nn.Linear(64, 9)
    with pytest.raises(
        InputError, match=r"of 4\.weight has shape \(8, 64\), but the weight has \(9, 64\)"
    ):
        Pruner(wider, None, ADMM(rho=0.1), budget=HALF).load_state_dict(state)

    averaged = Pruner(small_net(), None, SASADMM(average_from=3), budget=HALF)
    last = Pruner(small_net(), None, SASADMM(), budget=HALF)
    with pytest.raises(
        InputError, match=r"holds \['mean', .*this method keeps \['momentum_point', "
    ):
        last.load_state_dict(averaged.state_dict())

    for method in (ADMM(rho=0.1), OneShot()):
        dense = Pruner(small_net(), None, method, budget=HALF).state_dict()
        done = Pruner(small_net(), None, method, budget=HALF)
        done.hard_prune()
        with pytest.raises(
            InputError, match=r"from before hard pruning, .* load it into a new Pruner"
        ):
            done.load_state_dict(dense)


def test_masks_are_loaded_whatever_method_found_them() -> None:
    first = small_net()
    slr = Pruner(first, None, SLR(rho=0.1), budget=HALF)
    slr.hard_prune()
    second = small_net(seed=5)
    optimizer = sgd(second)
    retrained = Pruner(second, optimizer, SASADMM(), budget=HALF)
    retrained.load_state_dict(slr.state_dict())
    assert slr.masks is not None
    assert retrained.masks is not None
    assert_same(retrained.masks, slr.masks)
    train(second, optimizer, batches(3), retrained)
    for name, weight in pruned_weights(second).items():
        assert torch.equal(weight != 0, slr.masks[name])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"history": "x"}, "history .* holds 'x', which is no outer iteration"),
        ({"history": [{"a": 1}]}, "which is no outer iteration"),
        ({"loss_count": -3}, "loss_count .* is -3, allowed is a whole number"),
        ({"loss_sum": "much"}, "loss_sum .* is 'much', no finite number"),
        ({"loss_sum": math.nan}, "loss_sum .* is nan, no finite number"),
        ({"loss_sum": -math.inf}, "loss_sum .* is -inf, no finite number"),
        ({"loss_sum": True}, "loss_sum .* is True, no finite number"),
        ({"state": {"tensors": {}, "scalars": None}}, "holds no tensors and scalars"),
        ({"state": {"tensors": {}, "scalars": {"k": -1}}}, "number k .* is -1"),
        ({"state": {"tensors": {}, "scalars": {"k": "a"}}}, "number k .* is 'a'"),
        ({"state": 3}, "holds no tensors and scalars"),
    ],
)
def test_a_damaged_saved_state_is_refused_by_what_is_wrong(
    damage: dict[str, object], said: str
) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    pruner = Pruner(model, None, ADMM(rho=0.1), budget=HALF)
    state = pruner.state_dict()
    with pytest.raises(InputError, match=said):
        pruner.load_state_dict({**state, **damage})
    pruner.load_state_dict(state)


@pytest.mark.parametrize(
    ("convert", "said"),
    [
        (
            lambda value: value.int(),
            r"of 0\.weight is of torch\.int32, but this method keeps torch\.",
        ),
        (lambda value: value.to(torch.uint8), r"of 0\.weight is of torch\.uint8, but this method"),
        (lambda value: value * math.nan, r"of 0\.weight in the saved pruner state holds NaN or"),
        (
            lambda value: value / 0 + math.inf,
            r"of 0\.weight in the saved pruner state holds NaN or",
        ),
        (lambda value: value.tolist(), r"of 0\.weight in the saved pruner state is a list, no"),
        (lambda value: None, r"of 0\.weight in the saved pruner state is a NoneType, no tensor"),
        (lambda value: value[:1], r"of 0\.weight has shape"),
    ],
)
@pytest.mark.parametrize("name", ["admm, free", "slr", "sas_admm", "dpf"])
def test_damaged_tensors_of_a_saved_state_are_refused(name: str, convert: Any, said: str) -> None:
    method = METHOD_EXAMPLES[name]
    model = small_net()
    pruner = Pruner(model, None, method, budget=HALF)
    state = pruner.state_dict()
    tensors = state["state"]["tensors"]
    kinds = list(tensors)
    if not kinds:
        pytest.skip("the method keeps no tensors")
    before = copy.deepcopy(tensors)
    for kind in kinds:
        if kind == "kept" and convert(torch.ones(2)) is not None and "uint8" not in said:
            continue
        damaged = {**before[kind], "0.weight": convert(before[kind]["0.weight"])}
        broken = {**state["state"], "tensors": {**before, kind: damaged}}
        with pytest.raises(InputError, match=said):
            pruner.load_state_dict({**state, "state": broken})
    for kind in kinds:
        assert_same(pruner.state_dict()["state"]["tensors"][kind], before[kind])


@pytest.mark.parametrize("width", [torch.float16, torch.float64])
def test_a_saved_state_of_another_width_is_taken_up(width: torch.dtype) -> None:
    pruner = Pruner(small_net(), None, ADMM(rho=0.1), budget=HALF)
    state = copy.deepcopy(pruner.state_dict())
    for tensors in state["state"]["tensors"].values():
        for name in tensors:
            tensors[name] = tensors[name].to(width)
    pruner.load_state_dict(state)
