"""A pruner that is bound to something that does not train says so; its copies are bound to the copies."""

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from core_models import (
    HALF,
    METHOD_EXAMPLES,
    assert_same,
    batches,
    loss_of,
    pruned_weights,
    sgd,
    small_net,
    snapshot,
    train,
    zeros_in,
)
from detprune import (
    ADMM,
    SASADMM,
    SLR,
    Budget,
    InputError,
    NonFiniteError,
    OneShot,
    Pruner,
)
from detprune.errors import ZerosLostError

DATA = batches(6)
ZEROS = {"0.weight": 36, "4.weight": 256, "6.weight": 12}
every_method = pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)


def pruned() -> tuple[nn.Module, torch.optim.SGD, Pruner]:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    train(model, optimizer, DATA, pruner, update_every=3)
    pruner.hard_prune()
    return model, optimizer, pruner


# -------------------------------------------------------------------- attach and remade optimizers


def test_attach_checks_as_the_constructor_does() -> None:
    model, optimizer, pruner = pruned()
    other = small_net()
    with pytest.raises(InputError, match=r"0\.weight, 4\.weight, 6\.weight: not held by the opt"):
        pruner.attach(sgd(other))
    with pytest.raises(InputError, match=r"^6\.weight: not held"):
        pruner.attach(torch.optim.SGD([model[0].weight, model[4].weight], 0.1))
    with pytest.raises(InputError, match="LBFGS, whose line search"):
        pruner.attach(torch.optim.LBFGS(model.parameters()))
    train(model, pruner._optimizer or optimizer, DATA)
    with pytest.raises(
        InputError, match="holds no parameter of the model: it was made for another"
    ):
        Pruner(model, sgd(other), ADMM(rho=0.1), budget=HALF)


def test_frozen_pruned_weights_need_no_optimizer_in_retraining() -> None:
    model, _, pruner = pruned()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.SGD([model[4].weight, model[6].weight], 0.1)
    pruner.attach(optimizer)
    train(model, optimizer, DATA)
    assert zeros_in(pruned_weights(model)) == ZEROS


@every_method
@pytest.mark.parametrize("observed", [True, False])
def test_an_optimizer_remade_without_attach_is_noticed(method: Any, observed: bool) -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), method, budget=HALF)
    second = sgd(model)
    train(model, second, DATA, pruner if observed else None)
    with pytest.raises(InputError, match=r"no step of the bound optimizer was seen .* attach\(opt"):
        pruner.update(None if observed else 1.0)
    if observed:
        with pytest.raises(InputError, match="no step of the bound optimizer was seen"):
            pruner.summary()
    pruner.attach(second)
    train(model, second, DATA, pruner)
    assert pruner.update().k == 1


@every_method
def test_training_that_no_version_number_counts_is_noticed(method: Any) -> None:
    model = small_net()  # by hand through .data, or in another process, as in Hogwild
    pruner = Pruner(model, sgd(model), method, budget=HALF)
    for weight in model.parameters():
        weight.data -= 1e-4 * torch.ones_like(weight)
    with pytest.raises(InputError, match=r"no step of the bound optimizer was seen .* by hand"):
        pruner.update(1.0)


def test_a_change_of_layout_is_no_training() -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), ADMM(rho=0.1), budget=HALF)
    model.to(memory_format=torch.channels_last)
    assert pruner.update().k == 1


def test_zeros_that_an_unknown_optimizer_moved_are_noticed_and_come_back_with_attach() -> None:
    model, _, pruner = pruned()
    second = sgd(model)
    train(model, second, DATA)
    with pytest.raises(
        ZerosLostError, match=r"not zero in 0\.weight, 4\.weight, 6\.weight: they were"
    ):
        pruner.summary()
    pruner.attach(second)
    assert pruner.summary().sparsity == pytest.approx(0.5)


def test_another_model_that_is_trained_is_warned_about() -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), ADMM(rho=0.1), budget=HALF)
    twin = copy.deepcopy(model)
    train(twin, sgd(twin), DATA, pruner)
    pruner.update()
    train(twin, sgd(twin), DATA, pruner)
    with pytest.warns(UserWarning, match="6 losses were observed and no step .* another model"):
        pruner.update()


@pytest.mark.parametrize("cleared", [True, False])
def test_steps_that_a_scaler_skipped_are_no_fault(
    cleared: bool, recwarn: pytest.WarningsRecorder
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, SLR(rho=0.1), budget=HALF)
    loss = loss_of(model, DATA[0])
    (loss * math.inf).backward()
    pruner.observe(loss)
    if cleared:
        optimizer.zero_grad()
    assert pruner.update().k == 1
    train(model, optimizer, DATA, pruner)
    pruner.update()
    assert not recwarn.list


def test_loading_weights_is_no_training() -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    train(model, optimizer, DATA[:2], pruner, update_every=2)
    model.load_state_dict(small_net(seed=3).state_dict())
    pruner.summary()
    resumed = Pruner(model, optimizer := sgd(model), ADMM(rho=0.1), budget=HALF)
    resumed.load_state_dict(pruner.state_dict())
    train(model, optimizer, DATA[:2], resumed, update_every=2)


# -------------------------------------------------------------------- replaced parameters


def assigned(model: nn.Module) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


def new_head(model: nn.Module) -> None:
    model[6] = nn.Linear(8, 3)


def converted(model: nn.Module) -> None:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    model.double().float()
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def reparametrized(model: nn.Module) -> None:
    model[4].weight = nn.Parameter(model[4].weight.detach().clone())


@pytest.mark.parametrize("replace", [assigned, new_head, converted, reparametrized])
@pytest.mark.parametrize(
    "method", [ADMM(rho=0.1), METHOD_EXAMPLES["sas_admm"]], ids=["admm", "sas"]
)
def test_replaced_parameters_are_noticed_and_taken_up(
    replace: Callable[[nn.Module], None], method: Any
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, DATA, pruner)
    replace(model)
    for act in (pruner.update, pruner.summary, pruner.hard_prune, pruner.hard_pruned_copy):
        with pytest.raises(
            InputError, match=r"no longer those that the pruner was made with: .*[046]"
        ):
            act()
    with pytest.raises(InputError, match="not held by the optimizer"):
        pruner.attach(optimizer)
    second = sgd(model)
    pruner.attach(second)
    train(model, second, DATA, pruner, update_every=6)
    pruner.hard_prune()
    train(model, second, DATA)
    assert zeros_in(pruned_weights(model)) == ZEROS


def test_a_network_of_other_shapes_needs_a_new_pruner() -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    train(model, optimizer, DATA, pruner)
    model[6] = nn.Linear(8, 5)
    optimizer.add_param_group({"params": list(model[6].parameters())})
    own = (pruner.update, pruner.summary, pruner.hard_prune, pruner.hard_pruned_copy)
    for act in (*own, lambda: pruner.attach(optimizer), lambda: pruner.attach(sgd(model))):
        with pytest.raises(
            InputError, match=r"no parameters 6\.weight of the pruned shapes .* make a new Pruner"
        ):
            act()


# -------------------------------------------------------------------- copies


@every_method
@pytest.mark.parametrize("how", [copy.deepcopy, lambda things: pickle.loads(pickle.dumps(things))])
@pytest.mark.parametrize("phase", ["constrained", "at the extrapolated point", "retraining"])
def test_copies_of_all_three_train_like_the_original(
    method: Any, how: Callable[[Any], Any], phase: str
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, DATA, pruner, update_every=3)
    train(model, optimizer, DATA[:2], pruner)
    if phase == "retraining":
        pruner.hard_prune()
    elif phase == "at the extrapolated point":
        model[1].eval()
        loss_of(model, DATA[0])
    weights = snapshot(model)
    twin, second, clone = how((model, optimizer, pruner))
    assert clone.model is twin
    pruner.detach()
    pruner.attach(optimizer)
    assert_same(snapshot(twin), snapshot(model))
    for one, by, to in ((model, optimizer, pruner), (twin, second, clone)):
        train(one, by, DATA, to)
        if phase != "retraining":
            to.update()
        to.hard_prune()
        train(one, by, DATA, to)
    assert_same(snapshot(twin), snapshot(model))
    assert not torch.equal(snapshot(model)["4.weight"], weights["4.weight"])
    assert zeros_in(pruned_weights(twin)) == ZEROS


def test_a_pruner_copied_alone_has_a_model_of_its_own() -> None:
    model, _, pruner = pruned()
    before = snapshot(model)
    clone = copy.deepcopy(pruner)
    train(clone.model, clone._optimizer, DATA)
    assert zeros_in(pruned_weights(clone.model)) == ZEROS
    assert_same(snapshot(model), before)
    with pytest.raises(InputError, match="another pruner is bound to this optimizer"):
        copy.copy(pruner)


# -------------------------------------------------------------------- two pruners


def test_two_pruners_of_the_same_weights_are_refused() -> None:
    model = small_net()
    optimizer = sgd(model)
    first = Pruner(model, optimizer, SASADMM(), budget=Budget(sparsity=0.5, exclude=["0"]))
    other = Pruner(model, optimizer, ADMM(rho=0.1), budget=Budget(sparsity=0.5, include=["0"]))
    with pytest.raises(InputError, match=r"another pruner is bound .* call detach\(\) on it first"):
        Pruner(model, optimizer, SLR(rho=0.1), budget=HALF)
    other.detach()
    with pytest.raises(InputError, match="another pruner, with SASADMM or DPF, still moves these"):
        Pruner(model, sgd(model), SLR(rho=0.1), budget=HALF)
    first.detach()
    Pruner(model, optimizer, SLR(rho=0.1), budget=HALF)


@every_method
def test_two_pruners_of_other_weights_share_an_optimizer(method: Any) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruners = [
        Pruner(model, optimizer, how, budget=Budget(sparsity=0.5, **{part: ["0.weight"]}))
        for how, part in ((method, "include"), (ADMM(rho=0.1), "exclude"))
    ]
    for _ in range(3):
        train(model, optimizer, DATA)
        for pruner in pruners:
            pruner.update(task_loss=1.0)
    for pruner in pruners:
        pruner.hard_prune()
    train(model, optimizer, DATA)
    for pruner in pruners:
        pruner.summary()
    assert zeros_in(pruned_weights(model)) == ZEROS


# -------------------------------------------------------------------- NaN, averages


@pytest.mark.parametrize("name", ["4.weight", "4.bias", "1.running_var"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@every_method
def test_hard_prune_refuses_what_is_not_finite(method: Any, name: str, poison: float) -> None:
    model = small_net()
    pruner = Pruner(model, sgd(model), method, budget=HALF)
    model.state_dict()[name].view(-1)[0] = poison
    before = snapshot(model)
    with pytest.raises(
        NonFiniteError, match=rf"hard-pruned holds NaN or infinite .* {name}: train"
    ):
        pruner.hard_prune()
    assert pruner.masks is None
    torch.testing.assert_close(snapshot(model), before, rtol=0, atol=0, equal_nan=True)


def test_a_saved_network_is_retrained_with_the_masks_of_its_zeros(tmp_path: Path) -> None:
    pruned = small_net()
    first = Pruner(pruned, None, OneShot(), budget=HALF)
    first.hard_prune()
    torch.save(pruned.state_dict(), tmp_path / "pruned.pt")
    model = small_net(seed=1)
    model.load_state_dict(torch.load(tmp_path / "pruned.pt"))
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, OneShot(), budget=HALF)
    pruner.hard_prune()
    assert first.masks is not None
    assert pruner.masks is not None
    assert all(torch.equal(mask, first.masks[name]) for name, mask in pruner.masks.items())
    train(model, optimizer, DATA)
    assert zeros_in(pruned_weights(model)) == ZEROS


def test_averages_that_are_older_than_hard_pruning_can_be_masked() -> None:
    model = small_net()
    optimizer = sgd(model)
    average = AveragedModel(model)
    pruner = Pruner(model, optimizer, OneShot(), budget=HALF)
    with pytest.raises(InputError, match=r"needs masks; call hard_prune\(\) first"):
        pruner.zero_masked(average)
    train(model, optimizer, DATA)
    average.update_parameters(model)
    pruner.hard_prune()
    assert zeros_in(pruned_weights(average.module)) == dict.fromkeys(ZEROS, 0)
    pruner.zero_masked(average)
    train(model, optimizer, DATA, after_step=lambda: average.update_parameters(model))
    assert zeros_in(pruned_weights(average.module)) == ZEROS
    with pytest.raises(InputError, match=r"has no weights 0\.weight, 4\.weight, 6\.weight of the"):
        pruner.zero_masked(nn.Linear(2, 2))
