"""What every registered method must do with whole channels: the contract of ``test_contract.py`` once more."""

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core_models import (
    METHOD_EXAMPLES,
    assert_same,
    batches,
    sgd,
    small_net,
    snapshot,
    tensors_of,
    train,
)
from detprune import ADMM, SLR, Budget, CoupledChannels, Method, Pruner
from detprune.channels import BoundChannels

CHANNELS = CoupledChannels(torch.zeros(2, 2, 6, 6), round_to=1)
HALF = Budget(sparsity=0.5)
GLOBAL = Budget(macs=0.6, allocation="global")
GROUPS = {"0.weight": 2, "0.bias": 2, "1.weight": 2, "1.bias": 2, "4.weight": 4, "4.bias": 4}
"""Rows of every member that are zero at half of the channels."""

METHODS: dict[str, Method] = METHOD_EXAMPLES | {
    "admm, ramp": ADMM(rho="auto", ramp=0.75, free_support=True),
    "slr, ramp": SLR(rho="auto", ramp=0.75, free_support=True),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def net(dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Sequential:
    """``small_net`` with biases and norms that differ from channel to channel, and activations with f(0) = 0."""
    model = small_net(dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(dtype))
    return model


def pruner_of(model: nn.Module, method: Method, budget: Budget = HALF, **options: Any) -> Pruner:
    return Pruner(
        model,
        sgd(model, **options),
        method,
        CHANNELS,
        budget,
        steps_per_update=3,
        updates=5,
    )


def optimizer_of(pruner: Pruner) -> torch.optim.Optimizer:
    assert pruner._optimizer is not None
    return pruner._optimizer


def zero_rows(model: nn.Module) -> dict[str, int]:
    """Rows of every parameter that are exactly zero."""
    return {
        name: int((parameter.detach().reshape(len(parameter), -1) == 0).all(1).sum())
        for name, parameter in model.named_parameters()
        if not name.startswith("6.")
    }


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_feasible_after_hard_prune_and_dtype_and_storage_kept(
    method: Method, dtype: torch.dtype
) -> None:
    model = net(dtype)
    pruner = pruner_of(model, method)
    pointers = {name: p.data_ptr() for name, p in model.named_parameters()}
    train(model, optimizer_of(pruner), batches(15, dtype), pruner, update_every=3)
    pruner.hard_prune()
    train(model, optimizer_of(pruner), batches(2, dtype), pruner)
    assert zero_rows(model) == GROUPS
    for name, parameter in model.named_parameters():
        assert (parameter.dtype, parameter.data_ptr()) == (dtype, pointers[name])
    small = pruner.shrink()
    assert [p.shape[0] for p in small.parameters()] == [2, 2, 2, 2, 4, 4, 3, 3]
    assert {p.dtype for p in small.parameters()} == {dtype}
    image = batches(1, dtype)[0][0]
    for mode in (False, True):
        one, other = model.train(mode)(image), small.train(mode)(image)
        torch.testing.assert_close(one, other)


def saved_and_loaded(state: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_method
@pytest.mark.parametrize("phase", ["mid iteration", "after an update", "masked"])
def test_save_load_continue_is_bit_equal(method: Method, phase: str) -> None:
    """The resumed pruner is made at other weights, at which a global allocation keeps other numbers."""
    data = batches(20)
    model = net()
    pruner = pruner_of(model, method, GLOBAL, weight_decay=1e-4)
    train(model, optimizer_of(pruner), data[:6], pruner, update_every=3)
    if phase == "masked":
        pruner.hard_prune()
    if phase != "after an update":
        train(model, optimizer_of(pruner), data[6:8], pruner)
    state = saved_and_loaded(
        {
            "model": model.state_dict(),
            "optimizer": optimizer_of(pruner).state_dict(),
            "pruner": pruner.state_dict(),
        }
    )

    resumed = net(seed=5)
    with torch.no_grad():  # other losses, other counts
        resumed[4].weight[:6] *= 0.01
    continued = pruner_of(resumed, method, GLOBAL, weight_decay=1e-4)
    assert state["pruner"]["channels"] != continued.state_dict()["channels"]
    resumed.load_state_dict(state["model"])
    optimizer_of(continued).load_state_dict(state["optimizer"])
    continued.load_state_dict(state["pruner"])
    for trained, to in ((model, pruner), (resumed, continued)):
        by = optimizer_of(to)
        train(trained, by, data[8:13], to)
        if phase != "masked":
            to.update()
            train(trained, by, data[13:], to, update_every=3)
            to.hard_prune()
    assert_same(snapshot(resumed), snapshot(model))
    assert continued.history == pruner.history
    assert continued.state_dict()["channels"] == pruner.state_dict()["channels"]
    assert [layer.sparsity for layer in continued.layers] == [x.sparsity for x in pruner.layers]
    assert_same(snapshot(continued.shrink()), snapshot(pruner.shrink()))


@every_method
@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies_continue_as_the_original(method: Method, how: str) -> None:
    model = net()
    pruner = pruner_of(model, method)
    data = batches(9)
    train(model, optimizer_of(pruner), data[:4], pruner, update_every=2)
    copied = copy.deepcopy(pruner) if how == "deepcopy" else pickle.loads(pickle.dumps(pruner))
    for one in (pruner, copied):
        train(one.model, optimizer_of(one), data[4:], one, update_every=2)
        one.hard_prune()
    assert_same(snapshot(copied.model), snapshot(model))
    assert_same(snapshot(copied.shrink()), snapshot(pruner.shrink()))


@every_method
def test_no_more_state_than_with_single_weights(method: Method) -> None:
    """As many kinds of tensors, and for the members only."""
    model = net()
    single = Pruner(net(), None, method, budget=HALF, steps_per_update=3, updates=5)
    pruner = pruner_of(model, method)
    kinds = pruner.state_dict()["state"]["tensors"]
    assert kinds.keys() == single.state_dict()["state"]["tensors"].keys()
    for kind in kinds:
        held = tensors_of(pruner, kind)
        assert {n: v.shape for n, v in held.items()} == {
            n: p.shape for n, p in model.named_parameters() if n in GROUPS
        }


@every_method
def test_state_has_the_structure_of_the_set(method: Method) -> None:
    """Where a method holds Z, or a support, whole groups are in it or out of it."""
    model = net()
    pruner = pruner_of(model, method)
    train(model, optimizer_of(pruner), batches(15), pruner, update_every=3)
    bound = pruner._problem.sparsity_set
    assert isinstance(bound, BoundChannels)
    kinds = pruner.state_dict()["state"]["tensors"]
    values: dict[str, Tensor] = kinds.get("z") or kinds.get("kept") or {}
    for name, dead in zero_rows_of(values).items():
        assert dead <= GROUPS[name]
    masks = bound.masks([values[n] if values else p for n, p in members(model)], [], jointly=False)
    alive = bound.alive(masks)
    assert alive[:-1].sum() == bound.kept.sum()


def zero_rows_of(values: dict[str, Tensor]) -> dict[str, int]:
    return {n: int((v.reshape(len(v), -1) == 0).all(1).sum()) for n, v in values.items()}


def members(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p.detach()) for name, p in model.named_parameters() if name in GROUPS]


def test_saved_counts_of_another_network_are_refused() -> None:
    pruner = pruner_of(net(), METHOD_EXAMPLES["admm"])
    state = pruner.state_dict()
    for wrong in ([1], [1, 99], [0, 4]):
        with pytest.raises(ValueError, match=r"saved numbers of channels.*are not those of this"):
            pruner.load_state_dict(state | {"channels": wrong})


@pytest.mark.parametrize(
    ("share", "kept"), [(0.0, (4, 8)), (0.25, (3, 7)), (0.5, (3, 6)), (1.0, (2, 4))]
)
def test_a_ramp_takes_groups_one_after_the_other(share: float, kept: tuple[int, int]) -> None:
    model = net()
    bound = CHANNELS.bind(model, HALF)
    masks = bound.masks_at([p for _, p in members(model)], [], False, share)
    left = tuple(int(mask.reshape(len(mask), -1).any(1).sum()) for mask in (masks[0], masks[4]))
    assert left == kept
