"""What cannot be done with channels is said before training, with the way out."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from channel_checks import Net
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from detprune import (
    ADMM,
    Budget,
    CoupledChannels,
    InputError,
    Magnitude,
    OneShot,
    Pruner,
    SparsitySet,
    Unstructured,
)
from detprune.errors import NonFiniteError, ZerosLostError
from detprune.sets import Filter


def conv(ins: int, outs: int, kernel: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, kernel, padding=kernel // 2)


def image() -> Tensor:
    return torch.randn(1, 3, 8, 8)


def chain() -> nn.Sequential:
    """Two families, 16 and 16 wide."""
    return nn.Sequential(
        conv(3, 16), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 16), nn.ReLU(), conv(16, 4)
    )


def residual() -> nn.Module:
    """``a`` and ``c`` write the same channels, ``b`` others."""
    return Net(
        lambda m, x: m.d((y := m.a(x)) + m.c(m.b(y).relu())),
        a=conv(3, 16),
        b=conv(16, 16),
        c=conv(16, 16),
        d=conv(16, 4),
    )


def refused(
    text: str,
    model: nn.Module,
    inputs: Any = None,
    budget: Budget | None = None,
    **options: Any,
) -> None:
    channels = CoupledChannels(image() if inputs is None else inputs, **options)
    with pytest.raises(InputError, match=text):
        channels.bind(model, budget or Budget(macs=0.5))


def test_example_inputs_that_do_not_run_name_the_models_own_error() -> None:
    text = r"does not run on the example inputs \(\(1, 5, 8, 8\) torch.float32 on cpu\): RuntimeError: .*5 channels"
    refused(text, chain(), torch.zeros(1, 5, 8, 8))
    refused("TypeError: .* takes 2 positional arguments but 3", chain(), (image(), image()))
    refused(
        r"(?s)\(dict\): .*forward=lambda model, batch: model\(\*\*batch\)",
        chain(),
        {"input": image()},
    )


@pytest.mark.parametrize(
    "select",
    [
        lambda scores: scores[scores > math.inf],
        lambda scores: [],
        lambda scores: float(scores.sum()),
        lambda scores: scores.argmax(1),
    ],
    ids=["empty", "none", "number", "classes"],
)
def test_outputs_without_numbers_show_nothing(select: Callable[[Tensor], Any]) -> None:
    def finds_nothing(model: nn.Module, x: Tensor) -> Any:
        return select(model(x))

    refused(
        "outputs .* hold no floating-point number .*forward=",
        chain(),
        image(),
        forward=finds_nothing,
    )


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (image() * math.nan, "the example inputs hold NaN or infinities, on which no outputs"),
        ((image(), torch.tensor(math.inf)), "hold NaN or infinities"),
        (image().to("meta"), r"hold no values \(device meta\)"),
        (image().to_sparse(), "does not run on the example inputs"),
    ],
)
def test_example_inputs_without_numbers(inputs: Any, text: str) -> None:
    refused(text, chain(), inputs)


def test_a_budget_of_another_type() -> None:
    with pytest.raises(InputError, match=r"the budget is of type str; make one.*Budget\(macs=0\.5"):
        CoupledChannels(image()).plan(chain(), "0.5")  # type: ignore[arg-type]


def test_example_inputs_may_be_left_out_only_until_they_are_needed() -> None:
    with pytest.raises(InputError, match=r"for example CoupledChannels\(torch.zeros\(1, 3, 224"):
        CoupledChannels().bind(chain(), Budget(macs=0.5))
    with pytest.raises(InputError, match="example inputs are of type int; pass a tensor, or a tup"):
        CoupledChannels(224).bind(chain(), Budget(macs=0.5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: conv(3, 16), "is an output of the network"),
        (
            lambda: nn.Sequential(nn.ReLU(), nn.Flatten()),
            "no convolution or linear layer took part",
        ),
        (lambda: nn.Sequential(conv(3, 16), nn.Sigmoid(), conv(16, 4)), "is not zero when its"),
        (lambda: nn.Sequential(conv(3, 16), nn.GroupNorm(1, 16), conv(16, 4)), "all together"),
        (lambda: chain().requires_grad_(False), "is frozen"),
    ],
    ids=["one layer", "no layer", "a gate", "one group", "frozen"],
)
def test_nothing_to_remove(model: Callable[[], nn.Module], reason: str) -> None:
    refused(f"no channel of this network can be removed.*{reason}.*Unstructured", model())


@pytest.mark.parametrize("name", ["macs", "parameters"])
def test_a_budget_below_the_fixed_part_says_the_least(name: str) -> None:
    model = chain()
    with pytest.raises(InputError, match=f"{name} is 0.01.* are left; ask for 0") as caught:
        CoupledChannels(image()).bind(model, Budget(**{name: 0.01}))
    least = float(str(caught.value).split("ask for ")[1].split(" ")[0])
    bound = CoupledChannels(image()).bind(model, Budget(**{name: least}))
    assert bound.kept.tolist() == [8, 8]
    refused("ask for", model, budget=Budget(**{name: least - 0.001}))


def test_rounding_to_more_than_a_layer_has() -> None:
    refused("round_to is 32, but the widest layer that can shrink has 16", chain(), round_to=32)
    for wrong in (0, -8, 2.5):
        with pytest.raises(InputError, match="round_to"):
            CoupledChannels(image(), round_to=wrong)  # type: ignore[arg-type]


def test_what_runs_the_network_is_a_function() -> None:
    with pytest.raises(InputError, match="forward is 'auto'; allowed is a function of"):
        CoupledChannels(image(), forward="auto")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "patterns", "text"),
    [
        ("exclude", ["c"], "exclude names only a part .*\n  c.weight without a.weight\nName all"),
        ("exclude", ["a", "d"], "a.weight without c.weight"),
        ("exclude", ["a.bias"], "a.bias without a.weight, c.weight"),
        ("include", ["a", "b"], "include names only a part .*\n  a.weight without c.weight\n"),
        ("include", ["[ab].weight", "d"], "a.weight without c.weight"),
    ],
)
def test_patterns_that_name_a_part_of_a_family(field: str, patterns: list[str], text: str) -> None:
    refused(f"(?s){text}", residual(), budget=Budget(macs=0.5, **{field: patterns}))


def test_patterns_that_name_whole_families() -> None:
    for budget, stays in (
        (Budget(macs=0.8, exclude=["a*", "c*"]), ["a.weight", "c.weight", "d.weight"]),
        (Budget(macs=0.8, include=["b"]), ["a.weight", "c.weight", "d.weight"]),
        (Budget(macs=0.5, include=["a", "c"]), ["b.weight", "d.weight"]),
        (Budget(macs=0.5, exclude=["d"]), ["d.weight"]),
    ):
        plan = CoupledChannels(image()).plan(residual(), budget)
        assert [layer.name for layer in plan.layers if not layer.removable] == stays


def test_a_frozen_member_keeps_its_family_without_an_error() -> None:
    model = residual()
    model.c.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    layers = CoupledChannels(image()).plan(model, Budget(macs=0.8)).layers
    assert [layer.removable for layer in layers] == [0, 16, 0, 0]
    plan = CoupledChannels(image()).plan(model, Budget(macs=0.8, exclude=["a"]))
    assert [layer.removable for layer in plan.layers] == [0, 16, 0, 0]


def test_layers_that_run_for_some_values_only() -> None:
    model = Net(
        lambda m, x: m.c((m.a(x) if x.mean() > 0 else m.b(x)).relu()),
        a=conv(3, 16),
        b=conv(3, 16),
        c=conv(16, 4),
    )
    refused(r"which layers of this network run depends on values \(a.weight, b.weight\)", model)


def test_networks_without_values() -> None:
    with torch.device("meta"):
        model = chain()
    refused("0.weight, 0.bias.* are on the meta device and have no values", model)
    lazy = nn.Sequential(nn.LazyConv2d(16, 1), nn.ReLU(), conv(16, 4))
    refused("the shapes of 0.weight, 0.bias are not known yet", lazy)


def test_a_network_that_cannot_be_copied() -> None:
    model = chain()
    model.stream = (i for i in range(3))
    refused("cannot be copied .*generator.*keep objects that cannot be copied outside", model)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"macs": 0}, "macs is 0, allowed is a number above 0, up to 1"),
        ({"macs": 1.5}, "macs is 1.5"),
        ({"macs": -0.5}, "macs is -0.5"),
        ({"macs": math.nan}, "macs is nan"),
        ({"macs": math.inf}, "macs is inf"),
        ({"macs": "half"}, "macs is 'half'"),
        ({"macs": True}, "macs is True"),
        ({"parameters": 0.0}, "parameters is 0.0"),
        ({"macs": 0.5, "sparsity": 0.5}, "both sparsity=0.5 and macs=0.5 are given"),
        ({"macs": 0.5, "parameters": 0.5}, "both macs=0.5 and parameters=0.5"),
        ({"macs": 0.5, "compression": 2}, "both compression=2 and macs=0.5"),
    ],
)
def test_budgets_out_of_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Budget(**options)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(compression=10), "compression is 10, which counts single weights; .* macs=0.5"),
        (
            Budget(),
            "the budget has no target; give macs=0.5, parameters=0.4, latency=0.5 or sparsity=0.5",
        ),
        (Budget(sparsity=0.5, scope="global"), "for channels use allocation='global'"),
        (Budget(macs=0.5, allocation="erk"), "allocation is 'erk', which is for single weights"),
        (
            Budget(sparsity=0.5, allocation="global"),
            "give macs=0.5, parameters=0.4 or latency=0.5 with it",
        ),
        (Budget(macs=0.5, allocation={"0": 0.5}), "give one of them"),
        (Budget(allocation={"nowhere*": 0.5}), "allocation: the pattern 'nowhere\\*' matches no"),
        (Budget(macs=0.5, include=["backbone*"]), "include: the pattern 'backbone\\*' matches no"),
        (Budget(macs=0.5, exclude=["5.wieght"]), "did you mean '5.weight'"),
    ],
    ids=str,
)
def test_budgets_that_do_not_fit(budget: Budget, text: str) -> None:
    refused(text, chain(), budget=budget)


@pytest.mark.parametrize("budget", [Budget(macs=0.5), Budget(parameters=0.5)], ids=str)
@pytest.mark.parametrize("sparsity_set", [Unstructured(), Filter(), None], ids=str)
def test_macs_with_single_weights(budget: Budget, sparsity_set: SparsitySet | None) -> None:
    with pytest.raises(InputError, match="count whole channels, which CoupledChannels"):
        Pruner(chain(), None, Magnitude(), sparsity_set, budget)


@pytest.mark.parametrize(("value", "error"), [(1.0, ZerosLostError), (math.nan, NonFiniteError)])
def test_shrinking_takes_out_only_what_is_zero(value: float, error: type[Exception]) -> None:
    model = chain()
    pruner = Pruner(model, None, OneShot(), CoupledChannels(image()), Budget(macs=0.5))
    pruner.hard_prune()
    weight = model[0].weight
    with torch.no_grad():
        weight[weight == 0 if value == 1.0 else weight != 0] = value
    with pytest.raises(error, match=r"0\.weight"):
        pruner.shrink()


def test_shrinking_needs_zeros_and_channels() -> None:
    model = chain()
    channels = CoupledChannels(image())
    pruner = Pruner(model, None, OneShot(), channels, Budget(macs=0.5))
    with pytest.raises(InputError, match=r"shrink\(\) removes the channels that are zero; call"):
        pruner.shrink()
    single = Pruner(chain(), None, OneShot(), Filter(), Budget(sparsity=0.5))
    single.hard_prune()
    with pytest.raises(InputError, match=r"Filter\(\) leaves single zeros in all of them; prune w"):
        single.shrink()
    with pytest.raises(InputError, match="does not prune single weights"):
        channels.mask(torch.ones(4, 4), 0.5)


def test_optimizers_of_other_networks() -> None:
    other = torch.optim.SGD(chain().parameters(), lr=0.1)
    with pytest.raises(InputError, match="the optimizer holds no parameter of the model"):
        Pruner(chain(), other, ADMM(rho=0.1), CoupledChannels(image()), Budget(macs=0.5))


def test_weights_that_the_optimizer_does_not_train_stay() -> None:
    model = chain()
    optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), CoupledChannels(image()), Budget(macs=0.8))
    assert [layer.name for layer in pruner.layers] == ["3.weight", "3.bias"]


def test_layers_whose_weight_is_computed_are_named(caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Sequential(*chain(), nn.ReLU(), conv(4, 16), nn.ReLU(), conv(16, 4))
    weight_norm(network[3])
    for exclude, told in ((("*.original*",), False), ((), True)):
        Pruner(
            network,
            None,
            OneShot(),
            CoupledChannels(image()),
            Budget(macs=0.9, exclude=exclude),
        )
        assert ("3.weight is computed by a parametrization" in caplog.text) is told
        assert ("remove_parametrizations(model.get_submodule('3')" in caplog.text) is told
