"""Weights that are no plain parameters of one module, and arguments of wrong types."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm

from core_models import HALF, assert_same, batches, pruned_weights, sgd, small_net, snapshot, train
from detprune import ADMM, SLR, Budget, Filter, InputError, OneShot, Pruner


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (lambda m: parametrizations.weight_norm(m), r"\(WeightNorm\): .*remove_parametrizations\("),
        (lambda m: parametrizations.spectral_norm(m), r"\(SpectralNorm\): .*remove_param"),
        (lambda m: parametrizations.orthogonal(m), r"\(Orthogonal\): .*remove_parametrizations\("),
        (
            lambda m: old_spectral_norm(m),
            r"spectral norm: torch\.nn\.utils\.remove_spectral_norm",
        ),
        (
            lambda m: prune.l1_unstructured(m, "weight", 0.3),
            r"mask of torch\.nn\.utils\.prune: torch\.nn\.utils\.prune\.remove\(",
        ),
    ],
)
@pytest.mark.parametrize("include", [None, ["*"], ["4"]])
def test_weights_that_are_worked_out_are_listed_with_the_call_that_ends_it(
    apply: Callable[[nn.Module], Any], message: str, include: list[str] | None
) -> None:
    model = small_net()
    apply(model[4])
    with pytest.raises(
        InputError, match=rf"4\.weight is computed by .*{message}.*get_submodule\('4'"
    ) as e:
        Pruner(model, None, ADMM(rho=0.1), Filter(), Budget(sparsity=0.5, include=include))
    assert "exclude=['4.weight']" in str(e.value)
    pruner = Pruner(model, None, ADMM(rho=0.1), budget=Budget(sparsity=0.5, exclude=["4.weight"]))
    assert [layer.name for layer in pruner.layers] == ["0.weight", "6.weight"]


def test_parts_of_a_weight_norm_are_refused_and_of_a_spectral_norm_pruned() -> None:
    model = small_net()
    parametrizations.weight_norm(model[4])
    part = "4.parametrizations.weight.original1"
    with pytest.raises(InputError, match=rf"{part} is a part of 4\.weight, which is computed"):
        Pruner(model, None, ADMM(rho=0.1), Filter(), Budget(sparsity=0.5, include=[part]))
    model = small_net()
    parametrizations.spectral_norm(model[4])
    optimizer = sgd(model)
    part = "4.parametrizations.weight.original"
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), budget=Budget(sparsity=0.5, include=[part]))
    train(model, optimizer, batches(3), pruner, update_every=3)
    pruner.hard_prune()
    assert int((model[4].weight == 0).sum()) == 256


class Twice(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
        self.alias = self.body
        self.kernel = nn.Linear(4, 4)
        self.kernel.register_parameter("again", self.kernel.weight)


def test_one_module_under_two_names_is_not_shared() -> None:
    def names(**options: Any) -> list[str]:
        budget = Budget(sparsity=0.5, **options)
        return [layer.name for layer in Pruner(Twice(), None, OneShot(), budget=budget).layers]

    both = ["body.0.weight", "body.1.weight"]
    assert names() == [*both, "kernel.weight"]
    assert names(include=["*"]) == [*both, "kernel.weight"]
    assert names(include=["alias.*"]) == both
    assert names(exclude=["alias.1"]) == ["body.0.weight", "kernel.weight"]
    tied = Twice()
    tied.kernel.weight = nn.Parameter(torch.randn(4, 4))
    tied.other = nn.Linear(4, 4)
    tied.other.weight = tied.kernel.weight
    with pytest.raises(InputError, match=r"kernel\.weight is shared with other\.weight"):
        Pruner(tied, None, OneShot(), budget=HALF)


def inference(_: nn.Module) -> nn.Module:
    with torch.inference_mode():
        return small_net()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.to("meta"), r"0\.weight is on the meta device and has no values"),
        (lambda m: m.to(torch.complex64), r"0\.weight is of torch\.complex64; float16"),
        (lambda m: m.to(torch.float8_e4m3fn), r"0\.weight is of torch\.float8_e4m3fn"),
        (
            lambda m: nn.Sequential(nn.LazyLinear(3)),
            r"shapes of 0\.weight.* are not known yet \(lazy",
        ),
        (inference, r"0\.weight was made under torch\.inference_mode\(\)"),
        (lambda m: m.requires_grad_(False), "These are all weights to be pruned: remove"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_cannot_be_computed_with(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner(make(small_net()), None, ADMM(rho=0.1), budget=HALF)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": SLR}, r"method is the class SLR; make one, for example SLR\(\)"),
        ({"method": "slr"}, r"method is 'slr', a str; write for example method=SLR\(\)"),
        ({"method": None}, "method is None, a NoneType"),
        ({"sparsity_set": Filter}, "sparsity_set is the class Filter"),
        ({"sparsity_set": "filter"}, "sparsity_set is 'filter', a str"),
        ({"sparsity_set": HALF}, r"sparsity_set is Budget\(.*; write budget=Budget\("),
        ({"method": Filter()}, r"method is Filter\(\), a Filter, .*; write sparsity_set=Filter\("),
        ({"budget": ADMM(rho=0.1)}, r"budget is ADMM\(.*; write method=ADMM\("),
        ({"budget": 0.9}, r"budget is 0\.9, a float; write for example budget=Budget\(compression"),
        ({"budget": {"sparsity": 0.9}}, "budget is .*, a dict"),
        ({"steps_per_update": 0}, "steps_per_update is 0, allowed is a whole number, 1 or more"),
        ({"steps_per_update": 2.5}, r"steps_per_update is 2\.5, allowed"),
        ({"updates": -1}, "updates is -1, allowed"),
        ({"updates": "3"}, "updates is '3', allowed"),
        ({"updates": True}, "updates is True, allowed"),
    ],
)
def test_arguments_of_wrong_types(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner(small_net(), None, **{"method": ADMM(rho=0.1), "budget": HALF, **options})


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            torch.ones(8),
            r"the task loss has shape \(8,\), it must be one number: .* loss\.mean\(\)",
        ),
        (torch.ones(2, 3), r"shape \(2, 3\)"),
        (torch.ones(0), r"shape \(0,\)"),
        (torch.tensor(1j), "complex64 on cpu; pass a real number"),
        (None, "the task loss is None, a NoneType"),
        ("1,5", "the task loss is '1,5', a str"),
        ({"loss": 1.0}, "a dict; pass a number"),
        ([torch.tensor(1.0)] * 2, "a list; pass a number"),
    ],
)
def test_losses_that_are_not_one_number(loss: Any, message: str) -> None:
    pruner = Pruner(small_net(), None, SLR(rho=0.1), budget=HALF)
    with pytest.raises(InputError, match=message):
        pruner.observe(loss)
    pruner.observe(torch.ones(1))
    assert pruner.update().task_loss == 1.0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "the saved pruner state lacks method, layers"),
        (None, "the saved pruner state is a NoneType"),
        ([1], "the saved pruner state is a list"),
    ],
)
def test_states_that_are_none(state: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner(small_net(), None, SLR(rho=0.1), budget=HALF).load_state_dict(state)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([torch.ones(2)], "masks is .*, a list; write for example masks=pruner.masks"),
        ({"0.weight": torch.ones(4, 2, 3, 3)}, r"mask of 0\.weight is of torch\.float32"),
        ({"0.weight": None}, r"mask of 0\.weight is of NoneType"),
        ({"0.weight": torch.ones(1, dtype=torch.bool)}, r"another model: 0\.weight has shape \(1,"),
        (
            {"module.0.weight": torch.ones(4, 2, 3, 3, dtype=torch.bool)},
            r"another model: .* no parameter module\.0\.weight.* without the prefix of a wrapper",
        ),
        (
            {"0.bias": torch.ones(4, dtype=torch.bool)},
            r"masks of 0\.bias: they are masks of whole channels.* with shrink\(\)",
        ),
    ],
)
def test_masks_that_are_none(masks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pruner.with_masks(small_net(), masks)


@pytest.mark.parametrize("optimizer", [False, True])
def test_masks_that_keep_nothing_are_refused_and_empty_layers_told_of(
    optimizer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = small_net()
    bound = sgd(model) if optimizer else None
    shapes = {name: weight.shape for name, weight in pruned_weights(model).items()}
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    before = snapshot(model)
    with pytest.raises(
        InputError, match=r"keep no weight at all: 0\.weight, 4\.weight, 6.* inverted"
    ):
        Pruner.with_masks(model, masks, bound)
    state = Pruner.with_masks(small_net(), {n: ~mask for n, mask in masks.items()}).state_dict()
    with pytest.raises(InputError, match="keep no weight at all"):
        Pruner(model, bound, SLR(rho=0.1), budget=HALF).load_state_dict({**state, "masks": masks})
    assert_same(snapshot(model), before)
    assert not caplog.records
    # a budget of scope "global" may leave a layer nothing
    Pruner.with_masks(model, {**masks, "0.weight": ~masks["0.weight"]})
    assert "keep no weight of 4.weight, 6.weight: these layers" in caplog.text
    assert int(model[4].weight.count_nonzero()) == 0
