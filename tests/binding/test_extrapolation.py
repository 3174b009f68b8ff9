"""Gradients that are not taken at the extrapolated point are named; a second backward is at it too."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from core_models import HALF, METHOD_EXAMPLES, batches, loss_of, sgd, small_net, train
from detprune import Budget, InputError, Pruner

DATA = batches(6)
ahead = pytest.mark.parametrize("name", ["sas_admm", "dpf"])


class Bypassed(nn.Module):
    """The last layer's weight is used without its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(self.net[:6](images), self.net[6].weight)


class Checkpointed(Bypassed):
    reentrant = True

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.net[:4](images)
        return checkpoint(self.net[4:], hidden, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.conv(images).flatten(2).mT
        return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))  # type: ignore[no-any-return]


class InEvalMode(Bypassed):
    def forward(self, images: Tensor) -> Tensor:
        self.net[4].eval()
        return self.net(images)  # type: ignore[no-any-return]


@ahead
@pytest.mark.parametrize(
    ("model", "missed"),
    [
        (Bypassed, "net.6.weight"),
        (Checkpointed, "net.4.weight, net.6.weight"),
        (InEvalMode, "net.4.weight"),
    ],
)
def test_gradients_taken_elsewhere_are_named_with_the_way_out(
    name: str, model: Callable[[], nn.Module], missed: str
) -> None:
    method, network = METHOD_EXAMPLES[name], model()
    optimizer = sgd(network)
    pruner = Pruner(network, optimizer, method, budget=HALF)
    message = rf"gradient without it: {missed}\. Either .*use_reentrant=False"
    with pytest.raises(InputError, match=message):
        train(network, optimizer, DATA[:1])
    pruner.detach()
    exclude = missed.split(", ")
    pruner = Pruner(network, optimizer, method, budget=Budget(sparsity=0.5, exclude=exclude))
    train(network, optimizer, DATA, pruner, update_every=3)


@ahead
def test_a_module_that_is_never_called_is_named_at_once(name: str) -> None:
    method, network = METHOD_EXAMPLES[name], Attention()
    optimizer = sgd(network)
    with pytest.raises(
        InputError, match=r"never calls attention\.out_proj\.weight: leave them dense"
    ):
        Pruner(network, optimizer, method, budget=HALF)
    budget = Budget(sparsity=0.5, exclude=["*out_proj"])
    pruner = Pruner(network, optimizer, method, budget=budget)
    train(network, optimizer, DATA, pruner, update_every=3)


@ahead
def test_a_network_compiled_and_run_before_is_noticed(name: str) -> None:
    model = small_net()
    compiled = torch.compile(model, backend="eager")
    optimizer = sgd(model)
    train(compiled, optimizer, DATA[:1])
    pruner = Pruner(compiled, optimizer, METHOD_EXAMPLES[name], budget=HALF)
    with pytest.raises(InputError, match=r"without it: 0\.weight, 4\.weight, 6\.weight\."):
        train(compiled, optimizer, DATA[:1])
    pruner.detach()


@ahead
def test_the_other_checkpointing_trains_as_without(name: str) -> None:
    results = []
    for kind in (Bypassed, Checkpointed):
        network: Any = kind() if kind is Checkpointed else small_net()
        if kind is Checkpointed:
            network.reentrant = False
        optimizer = sgd(network)
        pruner = Pruner(network, optimizer, METHOD_EXAMPLES[name], budget=HALF)
        train(network, optimizer, DATA, pruner, update_every=3)
        results.append([p.detach().clone() for p in network.parameters()])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@ahead
@pytest.mark.parametrize("between", ["nothing", "evaluation", "another forward"])
def test_two_backwards_through_one_forward_equal_their_sum(name: str, between: str) -> None:
    results = []
    for twice in (True, False):
        model = small_net(torch.float64)
        model[1] = nn.Identity()
        optimizer = sgd(model)
        pruner = Pruner(model, optimizer, METHOD_EXAMPLES[name], budget=HALF)
        for images, labels in DATA:
            optimizer.zero_grad()
            logits = model(images.double())
            first = nn.functional.cross_entropy(logits, labels)
            second = logits.square().mean()
            if twice:
                first.backward(retain_graph=True)
                if between == "evaluation":
                    with torch.no_grad():
                        model.eval()(images.double())
                    model.train()
                elif between == "another forward":
                    model(images.double())
                second.backward()
            else:
                (first + second).backward()
            optimizer.step()
            pruner.observe(first)
        pruner.update()
        results.append([p.detach().clone() for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@ahead
@pytest.mark.parametrize("between", ["nothing", "evaluation"])
def test_a_penalty_on_the_weights_may_come_before_the_forward(name: str, between: str) -> None:
    results = []
    for before in (True, False):
        model = small_net(torch.float64)
        optimizer = sgd(model)
        pruner = Pruner(model, optimizer, METHOD_EXAMPLES[name], budget=HALF)
        for images, labels in DATA:
            optimizer.zero_grad()
            penalty = 0.01 * sum(p.square().sum() for p in model.parameters()) if before else None
            if between == "evaluation":
                with torch.no_grad():
                    model.eval()(images.double())
                model.train()
            loss = nn.functional.cross_entropy(model(images.double()), labels)
            if penalty is None:
                penalty = 0.01 * sum(p.square().sum() for p in model.parameters())
            (loss + penalty).backward()
            optimizer.step()
            pruner.observe(loss)
        pruner.update()
        results.append([p.detach().clone() for p in model.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@ahead
def test_a_backward_after_the_step_is_torchs_error(name: str) -> None:
    model = small_net()
    optimizer = sgd(model)
    Pruner(model, optimizer, METHOD_EXAMPLES[name], budget=HALF)
    loss = loss_of(model, DATA[0])
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@ahead
def test_gradients_that_are_put_there_by_hand_are_noticed(name: str) -> None:
    """Functional calls run on copies of the weights, which no hook moves to Ŵ."""
    model = small_net()
    optimizer = sgd(model)
    pruner = Pruner(model, optimizer, METHOD_EXAMPLES[name], budget=HALF)
    inputs, classes = batches(1)[0]
    copies = {n: weight.detach().clone().requires_grad_() for n, weight in model.named_parameters()}
    outputs = torch.func.functional_call(model, copies, (inputs,))
    nn.functional.cross_entropy(outputs, classes).backward()
    for key, weight in model.named_parameters():
        weight.grad = copies[key].grad
    with pytest.raises(InputError, match=r"put there by hand \(torch\.func\.grad"):
        optimizer.step()
    optimizer.zero_grad(set_to_none=False)  # zeros are no gradient
    optimizer.step()
    train(model, optimizer, batches(2), pruner)


@ahead
@pytest.mark.parametrize("again", ["attached", "copied"])
def test_a_weight_that_is_frozen_for_a_while(name: str, again: str) -> None:
    results = []
    for is_bound_again in (False, True):
        model = small_net()
        optimizer = sgd(model)
        pruner = Pruner(model, optimizer, METHOD_EXAMPLES[name], budget=HALF)
        frozen = pruner.summary().layers[0].name
        model.get_parameter(frozen).requires_grad_(False)
        if is_bound_again and again == "attached":
            pruner.attach(optimizer)
        elif is_bound_again:
            model, optimizer, pruner = copy.deepcopy((model, optimizer, pruner))
        train(model, optimizer, DATA[:3])
        assert not model.get_parameter(frozen).requires_grad
        model.get_parameter(frozen).requires_grad_(True)
        train(model, optimizer, DATA[3:6], pruner, update_every=3)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
