"""What a pruner notices of a training that goes on around it: changed groups, untrained weights, inference mode."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from core_models import (
    HALF,
    METHOD_EXAMPLES,
    assert_same,
    batches,
    pruned_weights,
    sgd,
    small_net,
    snapshot,
    train,
    zeros_in,
)
from detprune import (
    ADMM,
    DPF,
    SASADMM,
    SLR,
    Filter,
    InputError,
    Method,
    Pruner,
)

DATA = batches(6)
ZEROS = {"0.weight": 36, "4.weight": 256, "6.weight": 12}
every_method = pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)


# -------------------------------------------------------------------- changed groups of the optimizer


def swapped(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    optimizer.param_groups[0]["params"][4] = nn.Parameter(model[4].weight.detach().clone())


def dropped(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    del optimizer.param_groups[0]["params"][4]


@every_method
@pytest.mark.parametrize("change", [swapped, dropped])
def test_parameters_that_the_optimizer_holds_no_more_are_noticed(method: Any, change: Any) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, DATA, pruner)
    kept = optimizer.param_groups[0]["params"][:]
    change(optimizer, model)
    before = snapshot(model)
    calls = (lambda: pruner.update(1.0), pruner.summary, pruner.hard_prune)
    for call in (*calls, pruner.hard_pruned_copy):
        with pytest.raises(InputError, match=r"does not hold 4\.weight any more: .* attach\(opt"):
            call()
    assert_same(snapshot(model), before)
    optimizer.param_groups[0]["params"] = kept
    assert pruner.update(1.0).k == 1
    pruner.hard_prune()
    change(optimizer, model)
    with pytest.raises(InputError, match=r"does not hold 4\.weight any more"):
        pruner.summary()
    model[4].weight.requires_grad_(False)  # frozen for the rest of retraining
    pruner.summary()
    model[4].weight.requires_grad_(True)
    pruner.detach()
    assert zeros_in(pruned_weights(model)) == ZEROS
    pruner.summary()


@every_method
def test_weights_that_no_step_had_a_gradient_of_are_named_once(
    method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF, steps_per_update=2, updates=3)
    train(model, optimizer, DATA[:2], pruner, update_every=2)
    assert "had a gradient of" not in caplog.text
    optimizer.zero_grad()
    model[4].weight.requires_grad_(False)
    for _ in range(2):
        train(model, optimizer, DATA[:2], pruner, update_every=2)
    assert (
        caplog.text.count("no step of this outer iteration had a gradient of 4.weight: frozen") == 1
    )
    assert "6.weight" not in caplog.text


@every_method
def test_another_model_that_is_trained_is_noticed(
    method: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """``model = torch.load(...)`` in the middle of a loop: optimizer and pruner are those of the model before."""
    model, other = small_net(), small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF, steps_per_update=2, updates=3)
    train(model, optimizer, DATA, pruner, update_every=2)
    pruner.hard_prune()
    train(model, optimizer, DATA[:2])
    pruner.summary()
    assert "had a gradient of" not in caplog.text
    pruner.attach(optimizer)
    optimizer.zero_grad()
    train(other, optimizer, DATA[:2])
    pruner.summary()
    assert caplog.text.count("not one of 2 steps had a gradient of the pruned weights (0.w") == 1


@pytest.mark.parametrize(
    ("method", "named"),
    [
        (ADMM(rho=0.1), True),
        (SLR(rho=0.1), True),
        (SASADMM(inner_steps=4, beta=0.25, nu=10), True),
        (DPF(ramp=0), False),
    ],
)
def test_hard_pruning_without_any_update_is_said(
    method: Method, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop whose update() stands under a condition that never holds; DPF moves its masks at the steps."""
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, DATA[:3])
    pruner.hard_prune()
    said = "hard_prune() comes after 3 steps and no update()"
    assert (said in caplog.text) == named


def test_hard_pruning_after_an_update_or_without_training_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = small_net()
    Pruner(model, sgd(model), ADMM(rho=0.1), budget=HALF).hard_prune()
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    for _ in range(2):
        train(model, optimizer, DATA[:3])
        pruner.update()
    train(model, optimizer, DATA[:3])
    pruner.hard_prune()
    assert not caplog.records


def test_a_state_of_another_set_is_refused() -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    train(model, optimizer, DATA, pruner, update_every=3)
    state = pruner.state_dict()
    pruner.detach()
    other = Pruner(model, sgd(model), ADMM(rho=0.1), Filter(), HALF)
    with pytest.raises(InputError, match="of the set Unstructured, this pruner has Filter"):
        other.load_state_dict(state)
    del state["set"]  # of an earlier version
    other.load_state_dict(state)


@pytest.mark.parametrize("method", [ADMM(rho=0.1), SLR(rho=0.1), SASADMM(), DPF(ramp=0)])
def test_what_is_called_in_inference_mode_can_be_trained_after_it(method: Method) -> None:
    model = small_net()
    optimizer = sgd(model)
    data = batches(12)
    with torch.inference_mode():  # as around an evaluation
        pruner = Pruner(model, optimizer, method, budget=HALF)
        copied = pruner.hard_pruned_copy()
    train(model, optimizer, data[:3], pruner)
    with torch.inference_mode():
        pruner.update()
        saved = pruner.state_dict()
    train(model, optimizer, data[3:6], pruner)
    with torch.inference_mode():
        pruner.load_state_dict(saved)
    train(model, optimizer, data[6:9], pruner)
    pruner.update()
    with torch.inference_mode():
        pruner.hard_prune()
    train(model, optimizer, data[9:], pruner)
    assert pruner.summary().sparsity == pytest.approx(0.5, abs=0.01)
    train(copied, sgd(copied), data[:1])


@pytest.mark.parametrize("method", [ADMM(rho=0.1), SLR(rho=0.1)])
@pytest.mark.parametrize("again", ["attached", "copied"])
def test_loading_weights_after_the_pruner_was_bound_again_is_no_training(
    method: Any, again: str
) -> None:
    """Weights that were best are taken back, with a new optimizer, in the middle of an outer iteration."""
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    best = copy.deepcopy(model.state_dict())
    train(model, optimizer, DATA, pruner)
    if again == "attached":
        pruner.attach(optimizer := sgd(model))
    else:
        model, optimizer, pruner = copy.deepcopy((model, optimizer, pruner))
    model.load_state_dict(best)
    assert pruner.summary().sparsity < 0.5
    assert pruner.update().k == 1
    train(model, sgd(model), DATA, pruner)  # by another one
    with pytest.raises(InputError, match="no step of the bound optimizer was seen"):
        pruner.update()
