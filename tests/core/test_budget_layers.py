"""Budgets: what they refuse, how they spread, and which weights they choose."""

import math
from typing import Any

import pytest
import torch
from torch import Size, nn

from core_models import HALF, pruned_weights, sgd, small_net
from detprune import (
    ADMM,
    NM,
    Block,
    Budget,
    Filter,
    InputError,
    OneShot,
    Pattern,
    Pruner,
    SparsitySet,
    Unstructured,
)

SHAPES = {
    "stem.weight": Size((16, 3, 3, 3)),
    "layer1.conv1.weight": Size((32, 16, 3, 3)),
    "layer1.conv2.weight": Size((64, 32, 3, 3)),
    "head.weight": Size((10, 64)),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sparsity": 0.5, "compression": 2},
            r"both sparsity=0.5 and compression=2 are given; .*keep one of them",
        ),
        ({"sparsity": 1.0}, r"sparsity is 1\.0, allowed is 0 ≤ sparsity < 1 \(0\.9 zeroes 90 %\)"),
        ({"sparsity": -0.1}, r"sparsity is -0\.1, allowed is 0 ≤ sparsity < 1"),
        ({"sparsity": math.nan}, r"sparsity is nan, allowed is 0 ≤ sparsity < 1"),
        ({"compression": 0.5}, r"compression is 0\.5, allowed is 1 or more"),
        ({"compression": math.inf}, r"compression is inf, allowed is 1 or more"),
        ({"compression": math.nan}, r"compression is nan, allowed is 1 or more"),
        (
            {"sparsity": 0.5, "include": "layer*"},
            r"include is the string 'layer\*'; write a list of patterns: \['layer\*'\]",
        ),
        ({"sparsity": 0.5, "exclude": "head"}, r"exclude is the string 'head'; write a list"),
        (
            {"sparsity": 0.5, "scope": "globl"},
            r"unknown scope 'globl' \(did you mean 'global'\?\); known: global, layer",
        ),
        (
            {"sparsity": 0.5, "allocation": "unform"},
            r"unknown allocation 'unform' \(did you mean 'uniform'\?\); known: erk, global, uniform",
        ),
        (
            {"sparsity": 0.5, "scope": "global", "allocation": "erk"},
            r"scope is 'global', .* allocation is 'erk', .* or use scope='layer'",
        ),
        (
            {"sparsity": 0.5, "scope": "global", "allocation": {"*": 0.5}},
            r"scope is 'global', which ranks all tensors together",
        ),
        (
            {"allocation": {"layer*": 1.5}},
            r"allocation\['layer\*'\] is 1\.5, allowed is 0 ≤ sparsity < 1",
        ),
    ],
)
def test_budgets_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**options)


def test_compression_is_another_word_for_sparsity() -> None:
    assert Budget(compression=10).pruned_share == pytest.approx(0.9)
    assert Budget(compression=1).pruned_share == 0
    assert Budget(sparsity=0.3).pruned_share == 0.3
    assert Budget().pruned_share is None


def test_uniform_gives_every_tensor_the_target() -> None:
    assert Budget(sparsity=0.8).allocate(SHAPES) == dict.fromkeys(SHAPES, 0.8)


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8, 0.95, 0.99])
def test_erk_meets_the_target_in_total_and_spares_small_layers(sparsity: float) -> None:
    allocated = Budget(sparsity=sparsity, allocation="erk").allocate(SHAPES)
    total = sum(shape.numel() for shape in SHAPES.values())
    kept = sum((1 - allocated[name]) * shape.numel() for name, shape in SHAPES.items())
    assert kept == pytest.approx((1 - sparsity) * total, abs=1e-6)
    assert all(0 <= level < 1 for level in allocated.values())
    rounded = sum(round((1 - allocated[n]) * shape.numel()) for n, shape in SHAPES.items())
    assert abs(rounded - (1 - sparsity) * total) <= len(SHAPES)
    assert allocated["stem.weight"] < allocated["layer1.conv2.weight"]
    # the densities that are not capped are in the proportions of (Σ dims)/(Π dims)
    ratios = {
        (1 - level) * SHAPES[name].numel() / sum(SHAPES[name])
        for name, level in allocated.items()
        if level > 0
    }
    assert max(ratios) == pytest.approx(min(ratios))
    if sparsity <= 0.5:
        assert allocated["stem.weight"] == 0.0, "the density of a small layer is capped at 1"


def test_mapping_takes_the_first_match_and_the_target_for_the_rest() -> None:
    patterns = {"layer1.conv1": 0.9, "layer1.*": 0.7}
    expected = {"layer1.conv1.weight": 0.9, "layer1.conv2.weight": 0.7}
    assert Budget(allocation=patterns).allocate(SHAPES) == expected
    rest = {"stem.weight": 0.2, "head.weight": 0.2}
    assert Budget(sparsity=0.2, allocation=patterns).allocate(SHAPES) == {**rest, **expected}
    everything = {"*": 0.5, **patterns}
    assert set(Budget(allocation=everything).allocate(SHAPES)) == set(SHAPES)
    for target in ({"sparsity": 0.2}, {"compression": 4}):
        (name, value), said = *target.items(), "each of the . weights"
        with pytest.raises(InputError, match=f"{said}.*{name}={value} has no effect; leave {name}"):
            Budget(**target, allocation=everything).allocate(SHAPES)
    with pytest.raises(InputError, match=r"allocation: the pattern 'layr1\.\*' matches no weight"):
        Budget(allocation={"layr1.*": 0.5}).allocate(SHAPES)
    with pytest.raises(InputError, match=r"the budget has no target; give sparsity=0\.9"):
        Budget(allocation="erk").allocate(SHAPES)


class Everything(nn.Module):
    """One of each kind of module, with parameters of two dimensions that are no convolutions'."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)
        self.conv1d = nn.Conv1d(4, 8, 3)
        self.up = nn.ConvTranspose2d(8, 4, 2)
        self.norm = nn.BatchNorm2d(8)
        self.layer_norm = nn.LayerNorm([8, 4])
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
        self.query = nn.Parameter(torch.randn(4, 4))


def chosen(budget: Budget, model: nn.Module | None = None) -> list[str]:
    """Names of the weights that are pruned."""
    pruner = Pruner(model or Everything(), None, OneShot(), budget=budget)
    return [layer.name for layer in pruner.layers]


DEFAULT = ["conv.weight", "conv1d.weight", "up.weight", "head.0.weight", "head.2.weight"]


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (None, [], DEFAULT),
        (None, ["head.*"], DEFAULT[:3]),
        (None, ["conv.weight", "head.2"], ["conv1d.weight", "up.weight", "head.0.weight"]),
        (["conv*"], [], ["conv.weight", "conv1d.weight"]),
        (["head.?", "query"], ["head.0"], ["query", "head.2.weight"]),
        (["embedding"], [], ["embedding.weight"]),
    ],
)
def test_selection(include: list[str] | None, exclude: list[str], names: list[str]) -> None:
    assert chosen(Budget(sparsity=0.5, include=include, exclude=exclude)) == names


def test_patterns_that_match_nothing_are_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"include: the pattern 'convv' matches no weight.*names look like .*conv\.weight, ",
    ):
        chosen(Budget(sparsity=0.5, include=["convv"]))
    with pytest.raises(
        InputError, match=r"'conv1.weight' matches no weight \(did you mean 'conv1d\.weight'\?\)"
    ):
        chosen(Budget(sparsity=0.5, exclude=["conv1.weight"]))
    with pytest.raises(InputError, match=r"exclude: the pattern 'norm' matches no weight"):
        chosen(Budget(sparsity=0.5, exclude=["norm"]))  # a scale: never pruned


def test_nothing_selected_is_refused() -> None:
    for model, budget in (
        (Everything(), Budget(sparsity=0.5, exclude=["*"])),
        (nn.BatchNorm1d(4), HALF),
        (Everything(), Budget(allocation={})),
    ):
        with pytest.raises(InputError, match="no weight is selected for pruning; include="):
            chosen(budget, model)


def test_a_set_without_sparsity_of_its_own_needs_a_target() -> None:
    with pytest.raises(InputError, match=r"Filter\(\) needs a sparsity in \[0, 1\)"):
        Pruner(small_net(), None, OneShot(), Filter())
    pruner = Pruner(small_net(), None, OneShot(), NM(1, 2))
    assert {layer.sparsity for layer in pruner.layers} == {0.5}


def test_all_offenders_are_listed_together_with_the_remedy() -> None:
    model = Everything()
    model.head[0].weight.requires_grad_(False)
    model.tied = nn.Linear(8, 3)
    model.tied.weight = model.head[2].weight
    held = [p for p in model.parameters() if p is not model.up.weight]
    model.stem = nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.SGD([*held, model.stem.weight], 0.1)
    every = ["conv*", "up", "head.*", "tied", "stem"]
    with pytest.raises(InputError) as caught:
        Pruner(model, optimizer, ADMM(rho=0.1), NM(2, 4), Budget(include=every))
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 weight(s) cannot be pruned with NM(n=2, m=4):"
    assert sorted(line.strip() for line in lines[1:-1]) == sorted(
        [
            "up.weight is not held by the optimizer",
            "head.0.weight is frozen (requires_grad is False), so that training cannot make up "
            "for its zeros",
            "head.2.weight is shared with tied.weight",
            "tied.weight is shared with head.2.weight",
            "up.weight is of a transposed convolution, whose dim 1 holds its output channels",
            "stem.weight has 3 input channels, which is no multiple of 4",
        ]
    )
    names = "['up.weight', 'head.0.weight', 'head.2.weight', 'tied.weight', 'stem.weight']"
    assert lines[-1] == f"Leave them dense with exclude={names}, or remove the cause."
    remedied = Budget(include=every, exclude=[line.split()[0] for line in lines[1:-1]])
    pruner = Pruner(model, optimizer, ADMM(rho=0.1), NM(2, 4), remedied)
    assert [layer.name for layer in pruner.layers] == ["conv.weight", "conv1d.weight"]


def test_weights_that_the_set_cannot_hold_stay_dense_and_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = Everything()
    model.stem, model.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
    model.other = nn.Conv2d(3, 4, 1)
    fitting = ["conv.weight", "conv1d.weight", "head.0.weight", "head.2.weight"]
    for _ in range(2):
        pruner = Pruner(model, None, OneShot(), NM(2, 4))
        assert [layer.name for layer in pruner.layers] == fitting
    (line,) = [r.getMessage() for r in caplog.records if "cannot hold" in r.getMessage()]
    assert line.startswith("4 weight(s) stay dense, because NM(n=2, m=4) cannot hold them")
    assert "stem.weight, other.weight: has 3 input channels, which is no multiple of 4" in line
    assert "depthwise.weight: has 1 input channels" in line
    assert "up.weight: is of a transposed convolution" in line
    pruner.hard_prune()
    groups = model.conv.weight.reshape(8, 1, 4, 9)
    assert (groups != 0).sum(2).eq(2).all()


class Conv1D(nn.Module):
    """The linear layer of GPT-2 in transformers: its weight is (input, output)."""

    def __init__(self, outs: int, ins: int) -> None:
        super().__init__()
        self.nf, self.nx = outs, ins
        self.weight = nn.Parameter(torch.randn(ins, outs))


def test_groups_along_outputs_are_refused() -> None:
    model = nn.Sequential(Conv1D(8, 4), nn.Linear(8, 4))
    text = r"0\.weight is of a Conv1D of transformers, whose dim 1 holds its output channels"
    with pytest.raises(InputError, match=text):
        Pruner(model, None, OneShot(), NM(2, 4), Budget(include=["*.weight"]))


def test_patterns_leave_other_kernels_dense(caplog: pytest.LogCaptureFixture) -> None:
    pruner = Pruner(Everything(), None, OneShot(), Pattern())
    assert [layer.name for layer in pruner.layers] == ["conv.weight"]
    assert "is no convolution with a 3×3 kernel" in caplog.text


def test_a_weight_that_an_allocation_names_has_to_fit() -> None:
    named = Budget(allocation={"stem": 0.5, "conv": 0.5})
    model = Everything()
    model.stem = nn.Conv2d(3, 8, 3)
    with pytest.raises(InputError, match=r"stem\.weight has 3 input channels"):
        Pruner(model, None, OneShot(), NM(2, 4), named)


@pytest.mark.parametrize(
    ("sparsity_set", "options"),
    [
        (Unstructured(), {"compression": 8.71}),
        (Unstructured(), {"compression": 3.33, "allocation": "erk"}),
        (Unstructured(), {"compression": 12.0, "scope": "global"}),
        (Unstructured(), {"sparsity": 0.937}),
        (NM(2, 4), {"compression": 2.0, "exclude": ["0"]}),
        (NM(1, 2), {}),
    ],
)
def test_achieved_compression_is_within_one_weight_per_tensor(
    sparsity_set: SparsitySet, options: dict[str, Any]
) -> None:
    model = small_net()
    budget = Budget(**options)
    pruner = Pruner(model, sgd(model), OneShot(), sparsity_set, budget)
    pruner.hard_prune()
    summary = pruner.summary()
    target = budget.pruned_share if budget.pruned_share is not None else 0.5
    assert abs(summary.nonzero - (1 - target) * summary.numel) <= len(summary.pruned)
    if budget.scope == "layer" and budget.allocation == "uniform":
        for layer in summary.pruned:
            assert abs(layer.nonzero - (1 - target) * layer.numel) <= 1


@pytest.mark.parametrize("sparsity_set", [Filter(), Block(2, 2), Pattern()])
def test_structured_sets_are_within_one_group_per_tensor(sparsity_set: SparsitySet) -> None:
    model = nn.Sequential(nn.Conv2d(4, 16, 3), nn.Conv2d(16, 32, 3))
    pruner = Pruner(model, None, OneShot(), sparsity_set, Budget(sparsity=0.8))
    pruner.hard_prune()
    for weight in pruned_weights(model).values():
        group = {Filter: weight[0].numel(), Block: 4, Pattern: 4}[type(sparsity_set)]
        kept = int((weight != 0).sum())
        assert kept % group == 0
        assert abs(kept - 0.2 * weight.numel()) <= group / 2
