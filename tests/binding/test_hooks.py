"""The seam between optimizer and pruner: plain loops, closures, accumulation, clipping, scaling."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

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
    tensors_of,
    train,
    zeros_in,
)
from detprune import ADMM, SLR, InputError, Method, Pruner

DATA = batches(8)
acting = pytest.mark.parametrize(
    "method",
    [ADMM(rho=0.3), SLR(rho=0.3), METHOD_EXAMPLES["sas_admm"], METHOD_EXAMPLES["magnitude"]],
    ids=["admm", "slr", "sas_admm", "magnitude"],
)
Loop = Callable[[nn.Module, Optimizer], None]


def plain(model: nn.Module, optimizer: Optimizer) -> None:
    """What all other loops are to equal."""
    train(model, optimizer, DATA)


def closures(as_keyword: bool) -> Loop:
    """Lightning's automatic optimization: forward and backward inside ``step``."""

    def loop(model: nn.Module, optimizer: Optimizer) -> None:
        for batch in DATA:

            def closure(batch: tuple[Tensor, Tensor] = batch) -> Tensor:
                optimizer.zero_grad()
                loss = loss_of(model, batch)
                loss.backward()
                return loss

            loss: Any = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
            assert isinstance(loss, Tensor), "the closure's loss is returned"

    return loop


def without_norm() -> nn.Sequential:
    """Batch norm sees half batches otherwise than whole ones."""
    model = small_net(torch.float64)
    model[1] = nn.Identity()
    return model


def trained(model: nn.Module, method: Method, loop: Loop, **options: Any) -> dict[str, Tensor]:
    """Weights after training under a method, two outer iterations in all."""
    optimizer = sgd(model, **options)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    loop(model, optimizer)
    pruner.update(task_loss=1.0)
    loop(model, optimizer)
    return snapshot(model)


@acting
@pytest.mark.parametrize("as_keyword", [False, True])
def test_closures_train_like_plain_loops(method: Method, as_keyword: bool) -> None:
    expected = trained(small_net(), method, plain)
    assert_same(trained(small_net(), method, closures(as_keyword)), expected)
    unpruned = small_net()
    for _ in range(2):
        plain(unpruned, sgd(unpruned))
    assert not torch.equal(expected["4.weight"], unpruned[4].weight), "the method did not act"


@acting
def test_gradient_accumulation_adds_the_penalty_once_a_step(method: Method) -> None:
    double = [(images.double(), labels) for images, labels in DATA]

    def whole(model: nn.Module, optimizer: Optimizer) -> None:
        train(model, optimizer, double)

    def halves(model: nn.Module, optimizer: Optimizer) -> None:
        for images, labels in double:
            optimizer.zero_grad()
            for part in (slice(0, 4), slice(4, 8)):
                (0.5 * loss_of(model, (images[part], labels[part]))).backward()
            optimizer.step()

    expected = trained(without_norm(), method, whole)
    actual = trained(without_norm(), method, halves)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", [ADMM(rho=0.5), SLR(rho=0.5)], ids=["admm", "slr"])
def test_clipping_before_the_step_does_not_clip_the_penalty(method: Method) -> None:
    model = small_net()
    optimizer = sgd(model, lr=0.5, momentum=0.0)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    loss_of(model, DATA[0]).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    before = snapshot(model)
    clipped = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    anchors = tensors_of(pruner, "anchor")
    for name, value in snapshot(model).items():
        if name in clipped:
            gradient = clipped[name]
            if name in anchors:
                gradient = gradient + 0.5 * (before[name] - anchors[name])
                assert gradient.norm() > 0.1, "the penalty is far over the clipping bound"
            torch.testing.assert_close(value, before[name] - 0.5 * gradient)


@acting
def test_distributed_data_parallel_is_unwrapped(method: Method, tmp_path: Path) -> None:
    expected = trained(small_net(), method, plain)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        model = small_net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        optimizer = sgd(wrapped)
        pruner = Pruner(wrapped, optimizer, method, budget=HALF)
        assert pruner.model is model
        assert [layer.name for layer in pruner.layers] == ["0.weight", "4.weight", "6.weight"]
        plain(wrapped, optimizer)
        pruner.update(task_loss=1.0)
        plain(wrapped, optimizer)
    finally:
        torch.distributed.destroy_process_group()
    assert_same(snapshot(model), expected)


def test_compiled_models_are_unwrapped() -> None:
    model = small_net()
    compiled = torch.compile(model, backend="eager")
    pruner = Pruner(nn.DataParallel(compiled), None, ADMM(rho=0.1), budget=HALF)  # type: ignore[arg-type]
    assert pruner.model is model
    assert pruner.layers[0].name == "0.weight"


def hooks_of(model: nn.Module, optimizer: Optimizer) -> dict[str, int]:
    """How many hooks there are, by kind."""
    counts = {
        "step": len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)
    }
    for module in model.modules():
        for kind in ("_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks"):
            counts[kind] = counts.get(kind, 0) + len(getattr(module, kind))
    for parameter in model.parameters():
        for kind in ("_post_accumulate_grad_hooks", "_backward_hooks"):
            counts[kind] = counts.get(kind, 0) + len(getattr(parameter, kind, None) or ())
    return counts


@pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)
def test_detach_takes_every_hook_off(method: Method) -> None:
    model = small_net()
    optimizer = sgd(model)
    before = hooks_of(model, optimizer)
    pruner = Pruner(model, optimizer, method, budget=HALF)
    during = hooks_of(model, optimizer)
    ahead = method.extrapolates
    assert during["step"] == before["step"] + 2
    assert during["_forward_pre_hooks"] == (3 if ahead else 0)
    assert during["_post_accumulate_grad_hooks"] == (3 if ahead else 0)
    assert (during["_state_dict_pre_hooks"] > 0) is ahead
    loss_of(model, DATA[0])  # leaves Ŵ in the weights of a method that looks ahead
    pruner.detach()
    assert hooks_of(model, optimizer) == before
    free, twin = snapshot(model), copy.deepcopy(model)
    train(model, optimizer, DATA)
    train(twin, sgd(twin), DATA)
    assert_same(snapshot(model), snapshot(twin))
    assert not torch.equal(snapshot(model)["4.weight"], free["4.weight"])


@acting
def test_attach_to_another_optimizer_keeps_the_masks(method: Method) -> None:
    model = small_net()
    first = sgd(model)
    pruner = Pruner(model, first, method, budget=HALF)
    train(model, first, DATA, pruner, update_every=4)
    pruner.hard_prune()
    zeros = zeros_in(pruned_weights(model))
    second = torch.optim.AdamW(model.parameters(), 0.01, weight_decay=0.1)
    pruner.attach(second)
    assert hooks_of(model, first)["step"] == 0
    train(model, second, DATA, pruner)
    assert (
        zeros_in(pruned_weights(model))
        == zeros
        == {"0.weight": 36, "4.weight": 256, "6.weight": 12}
    )


def test_lbfgs_is_refused() -> None:
    model = small_net()
    optimizer = torch.optim.LBFGS(model.parameters())
    with pytest.raises(InputError, match=r"LBFGS, whose line search .* use SGD, Adam or another"):
        Pruner(model, optimizer, ADMM(rho=0.1), budget=HALF)
    assert hooks_of(model, optimizer)["step"] == 0


def test_a_pruner_that_cannot_be_made_leaves_no_hooks() -> None:
    model = small_net()
    optimizer = torch.optim.Adam(model.parameters())
    method = ADMM(rho="auto", penalty="gradient")
    with pytest.raises(InputError, match="rho by pull is worked out for SGD"):
        Pruner(model, optimizer, method, budget=HALF, steps_per_update=1, updates=1)
    assert hooks_of(model, optimizer)["step"] == 0
