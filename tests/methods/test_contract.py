"""What every registered method must do, whatever it is."""

import copy
import dataclasses
import io
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from core_models import (
    HALF,
    HALVES,
    METHOD_EXAMPLES,
    assert_same,
    batches,
    loss_of,
    pruned_weights,
    scalars_of,
    sgd,
    small_net,
    snapshot,
    tensors_of,
    train,
    zeros_in,
)
from detprune import (
    Budget,
    Growth,
    Method,
    NonFiniteError,
    Pruner,
    Pull,
)
from detprune.methods import METHODS, TRANSIENT, State

every_method = pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)


def saved_and_loaded(state: Any) -> Any:
    """Through a file, as a trainer would, with nothing but plain values and tensors in it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_every_registered_method_is_in_the_suite() -> None:
    assert {type(method) for method in METHOD_EXAMPLES.values()} == set(METHODS.values())


def test_every_registered_method_says_what_people_call_it() -> None:
    titles = [method.title for method in METHODS.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_every_field_of_a_state_is_saved_unless_it_says_otherwise() -> None:
    @dataclasses.dataclass
    class Extended(State):
        moments: float = 0.0
        cached: float = dataclasses.field(default=0.0, metadata=TRANSIENT)

    saved = Extended(k=3, moments=0.5, cached=2.0).state_dict([])
    loaded = Extended()
    loaded.load_state_dict(saved, [])
    assert (loaded.k, loaded.moments, loaded.cached) == (3, 0.5, 0.0)


@every_method
def test_an_optimizer_that_maximises_goes_up(method: Method) -> None:
    """Up on the negative loss is down on the loss."""
    ends = []
    for maximize in (False, True):
        model = small_net()
        optimizer = sgd(model, maximize=maximize)
        pruner = Pruner(model, optimizer, method, budget=HALF, steps_per_update=5, updates=4)
        for index, batch in enumerate(batches(20), start=1):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            (-loss if maximize else loss).backward()
            optimizer.step()
            pruner.observe(loss)
            if index % 5 == 0:
                pruner.update()
        ends.append(snapshot(model))
    assert_same(*ends)


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_feasible_after_hard_prune_and_dtype_and_storage_kept(
    method: Method, dtype: torch.dtype
) -> None:
    model = small_net(dtype).to(memory_format=torch.channels_last)
    optimizer = sgd(model)
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    pruner = Pruner(model, optimizer, method, budget=HALF)
    before = snapshot(model)
    train(model, optimizer, batches(9, dtype), pruner, update_every=3)
    moved = snapshot(model)
    assert all(not torch.equal(moved[name], before[name]) for name in HALVES)
    assert pruner.masks is None
    pruner.hard_prune()
    assert zeros_in(pruned_weights(model)) == HALVES
    train(model, optimizer, batches(2, dtype), pruner)
    assert zeros_in(pruned_weights(model)) == HALVES
    for name, parameter in model.named_parameters():
        assert parameter.dtype == dtype
        assert parameter.device.type == "cpu"
        assert parameter.data_ptr() == pointers[name], f"{name} was moved in memory"
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


@every_method
def test_half_precision_keeps_its_state_in_float32(method: Method) -> None:
    model = small_net(torch.bfloat16)
    pruner = Pruner(model, sgd(model), method, budget=HALF)
    kinds = pruner.state_dict()["state"]["tensors"]
    for tensors in kinds.values():
        for name, value in tensors.items():
            assert value.dtype in (torch.float32, torch.bool)  # supports are boolean
            assert value.shape == model.get_parameter(name).shape


@every_method
@pytest.mark.parametrize("phase", ["mid iteration", "after an update", "masked"])
def test_save_load_continue_is_bit_equal(method: Method, phase: str) -> None:
    data = batches(20)
    model = small_net()
    optimizer = sgd(model, weight_decay=1e-4)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, data[:6], pruner, update_every=3)
    if phase == "mid iteration":
        train(model, optimizer, data[6:8], pruner)
    elif phase == "masked":
        pruner.hard_prune()
        train(model, optimizer, data[6:8], pruner)
    state = saved_and_loaded(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "p": pruner.state_dict()}
    )

    resumed = small_net(seed=99)
    resumed.load_state_dict(state["model"])
    second = sgd(resumed, weight_decay=1e-4)
    second.load_state_dict(state["optimizer"])
    continued = Pruner(resumed, second, method, budget=HALF)
    continued.load_state_dict(state["p"])
    assert continued.history == pruner.history
    for trained, by, to in ((model, optimizer, pruner), (resumed, second, continued)):
        train(trained, by, data[8:13], to)
        if phase != "masked":
            to.update()
            train(trained, by, data[13:], to, update_every=3)
            to.hard_prune()
    assert_same(snapshot(resumed), snapshot(model))
    assert continued.history == pruner.history
    assert len(pruner.history) == (2 if phase == "masked" else 5)
    assert continued.masks is not None
    assert pruner.masks is not None
    assert_same(continued.masks, pruner.masks)


@every_method
@pytest.mark.parametrize("optimizer_name", ["SGD", "Nesterov", "Adam", "AdamW", "RMSprop"])
def test_masked_weights_stay_zero_under_every_optimizer(
    method: Method, optimizer_name: str
) -> None:
    model = small_net()
    parameters = list(model.parameters())
    optimizer = {
        "SGD": lambda: sgd(model, lr=0.1, weight_decay=0.01),
        "Nesterov": lambda: sgd(model, lr=0.1, nesterov=True, weight_decay=0.01),
        "Adam": lambda: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.01),
        "AdamW": lambda: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
        "RMSprop": lambda: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.9),
    }[optimizer_name]()
    pruner = Pruner(model, optimizer, method, budget=HALF)
    # momentum from before the pruning would carry masked weights away from zero
    train(model, optimizer, batches(4), pruner, update_every=2)
    pruner.hard_prune()
    masks = pruner.masks
    assert masks is not None
    before = snapshot(model)

    def check() -> None:
        for name, weight in pruned_weights(model).items():
            outside = weight[~masks[name]]
            assert not outside.any(), f"{name} left zero"
            assert not torch.signbit(outside).any(), f"{name} has −0.0"

    train(model, optimizer, batches(6, seed=5), pruner, after_step=check)
    after = snapshot(model)
    assert all(not torch.equal(after[name], before[name]) for name in HALVES), "nothing trained"


@every_method
def test_hyperparameters_never_change(method: Method) -> None:
    before = copy.deepcopy(method)
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, batches(6), pruner, update_every=2)
    pruner.hard_prune()
    assert method == before
    assert pruner.method is method
    for field in dataclasses.fields(method):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(method, field.name, getattr(method, field.name))
    hash(method)  # only of immutable values


@pytest.mark.parametrize("schedule", [Growth(), Pull(), HALF], ids=lambda s: type(s).__name__)
def test_schedules_and_budgets_never_change(schedule: Growth | Pull | Budget) -> None:
    for field in dataclasses.fields(schedule):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(schedule, field.name, 0.2)


def state_of(pruner: Pruner) -> Iterator[tuple[str, Tensor]]:
    """Copies of all tensors and scalars of a method's state."""
    for kind, tensors in pruner.state_dict()["state"]["tensors"].items():
        for name in tensors:
            yield f"{kind} {name}", tensors_of(pruner, kind)[name].clone()
    for name, value in scalars_of(pruner).items():
        yield name, torch.tensor(value)


@every_method
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_non_finite_weights_are_named_and_nothing_changes(method: Method, poison: float) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, batches(4), pruner, update_every=2)
    state = dict(state_of(pruner))
    healthy = model[4].weight.detach().clone()
    with torch.no_grad():
        model[4].weight[1, 2] = poison
    with pytest.raises(NonFiniteError, match=r"weight of 4\.weight is not finite.*Nothing was"):
        pruner.update(task_loss=1.0)
    assert_same(dict(state_of(pruner)), state)
    assert len(pruner.history) == 2
    with torch.no_grad():
        model[4].weight.copy_(healthy)
    assert pruner.update(task_loss=1.0).k == 3


@every_method
@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("observed", [False, True])
def test_non_finite_losses_are_refused_and_nothing_changes(
    method: Method, loss: float, observed: bool
) -> None:
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    train(model, optimizer, batches(4), pruner, update_every=2)
    state = dict(state_of(pruner))
    if observed:
        pruner.observe(torch.tensor(1.0))
        pruner.observe(torch.tensor(loss))
    with pytest.raises(NonFiniteError, match=rf"task loss of outer iteration 3 is {loss}; Z, mul"):
        pruner.update(None if observed else loss)
    assert_same(dict(state_of(pruner)), state)
    assert len(pruner.history) == 2
