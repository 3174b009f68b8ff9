"""What constrained training would refuse at its start is refused before the dense network is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detprune import ADMM, DPF, NM, SASADMM, SLR, Budget, Filter, InputError, Pattern, Pruner
from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import Recipe, validate
from detprune_classification import ClassificationRecipe, ClassificationTask

ADAM = {"name": "adam", "lr": 0.001}


class Attentive(nn.Module):
    """A network of digits with attention over the rows of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LazyLinear(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 10)
        self(torch.zeros(1, 1, 8, 8))

    def forward(self, images: Tensor) -> Tensor:
        rows = self.rows(images.flatten(1, 2))
        logits: Tensor = self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))
        return logits


class Dense(Exception):  # noqa: N818
    """The dense stage began."""


class Untrained(ClassificationTask):
    """A task whose dense stage fails."""

    network: nn.Module | None = None

    def build_model(self) -> nn.Module:
        return super().build_model() if self.network is None else self.network

    def train_dense(self, model: nn.Module) -> None:
        raise Dense


def begun(
    tiny: dict[str, Any], folder: Path, network: nn.Module | None = None, **parts: object
) -> None:
    """Run the recipe with these parts, past the recipe's own checks, up to the dense stage."""
    optimizer = parts.pop("optimizer", None)
    if optimizer is not None:
        tiny["stages"]["constrained"]["optimizer"] = optimizer
    recipe: Recipe = validate(ClassificationRecipe, tiny).model_copy(update=parts)
    run = RunDirectory.open(folder / "run", recipe, resume=False)
    task = Untrained(recipe, run)
    task.network = network
    run_stages(task, recipe, run, "test")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"method": ADMM(rho="auto", penalty="gradient"), "optimizer": ADAM}, "worked out for SGD"),
        ({"method": SLR(rho="auto", penalty="gradient"), "optimizer": ADAM}, "leave out penalty"),
        (
            {"method": SLR(ramp=0.5), "set": NM(), "budget": Budget(exclude=["conv1"])},
            "lets the sparsity grow",
        ),
        ({"method": DPF(), "set": NM(), "budget": Budget(exclude=["conv1"])}, "sparsity grow"),
        ({"method": SASADMM(ramp=0.5), "set": NM(), "budget": Budget(exclude=["conv1"])}, "grow"),
        ({"set": NM(2, 5), "budget": Budget()}, "no multiple of 5"),
        ({"set": Pattern(), "budget": Budget(include=["linear"])}, "cannot be pruned with Pattern"),
        ({"budget": Budget(compression=4, include=["nothing*"])}, "'nothing\\*' matches no weight"),
        ({"budget": Budget(allocation={"nothing": 0.5})}, "'nothing' matches no weight"),
        ({"set": NM(), "budget": Budget(compression=10, exclude=["conv1"])}, "0.5"),
    ],
)
def test_what_does_not_go_together_is_found_before_the_dense_stage(
    tiny: dict[str, Any], tmp_path: Path, parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        begun(tiny, tmp_path, **parts)


@pytest.mark.parametrize("method", [SASADMM(), DPF()])
def test_projections_of_attention_that_no_hook_sees(
    tiny: dict[str, Any], tmp_path: Path, method: Any
) -> None:
    said = r"never calls attention\.out_proj\.weight: leave them dense, exclude=\['att"
    with pytest.raises(InputError, match=said):
        begun(tiny, tmp_path, Attentive(), method=method)
    model = Attentive()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(InputError, match=said):
        Pruner(model, optimizer, SASADMM(), budget=Budget(sparsity=0.5))
    exclude = Budget(sparsity=0.5, exclude=["*out_proj"])
    with pytest.raises(Dense):
        begun(tiny, tmp_path / "excluded", Attentive(), method=method, budget=exclude)


@pytest.mark.parametrize(
    "parts",
    [
        {"method": SASADMM(), "optimizer": ADAM},
        {"method": DPF(ramp=0.5)},
        {"method": ADMM(rho="auto"), "optimizer": ADAM},
        {"set": Filter()},
    ],
)
def test_a_rehearsal_leaves_no_trace(
    tiny: dict[str, Any], tmp_path: Path, parts: dict[str, Any]
) -> None:
    recipe = validate(ClassificationRecipe, tiny)
    network = ClassificationTask(recipe, RunDirectory(tmp_path)).build_model()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(Dense):
        begun(tiny, tmp_path, network, **parts)
    assert torch.equal(torch.get_rng_state(), random)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_state_dict_pre_hooks")
    assert not any(getattr(part, kind) for part in network.modules() for kind in hooks)
    assert not any(weight._post_accumulate_grad_hooks for weight in network.parameters())


class Deep(nn.Module):
    """A network of digits whose batch norm sees one value per image and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 16, 8), nn.BatchNorm2d(16), nn.Flatten())
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(images))
        return logits


@pytest.mark.parametrize(
    ("data", "images", "said"),
    [
        ({"train_limit": 33}, 256, "data.batch_size is 32, so that the last batch of 33"),
        ({"batch_size": 1}, 256, "data.batch_size is 1, so"),
        ({}, 1, "batch_norm_images is 1: batch norm has one value"),
        ({"train_limit": 34}, 2, None),
        ({"train_limit": 34}, 0, None),
    ],
)
def test_a_batch_of_one_image_is_refused_where_batch_norm_has_no_variance(
    tiny: dict[str, Any], tmp_path: Path, data: Any, images: int, said: str | None
) -> None:
    tiny["data"].update(data)
    tiny["batch_norm_images"] = images
    with pytest.raises(Dense if said is None else InputError, match=said):
        begun(tiny, tmp_path, Deep())
    tiny["budget"] = {"sparsity": 0.5}
    with pytest.raises(Dense):  # where it sees more values there is no fault
        begun(tiny, tmp_path / "other")
