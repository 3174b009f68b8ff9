"""Tasks: what an adapter implements for one kind of network."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from detprune.budgets import Budget
from detprune.channels import CoupledChannels, Forward
from detprune.channels.removal import resized_and_loaded, saved_with_widths, widths_of
from detprune.errors import InputError
from detprune.networks.batch_norm import statistics_layers
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune.sets import SparsitySet


class NetworkTask(ABC):
    """A recipe's network and data: builds, loads, measures and probes networks, and needs no run directory."""

    metrics: ClassVar[tuple[Metric, ...]]
    """Units and directions of the numbers that ``evaluate`` returns; the first is the headline."""

    recipe_type: ClassVar[type[Recipe]] = Recipe
    """What the recipe has to be."""

    recipe: Recipe

    def __init__(self, recipe: Recipe) -> None:
        if not isinstance(recipe, self.recipe_type):
            raise InputError(
                f"the recipe is a {type(recipe).__name__}, not a {self.recipe_type.__name__}"
            )
        self.recipe = recipe

    @property
    def metric(self) -> str:
        """Name of the headline."""
        return self.metrics[0].name

    @property
    @abstractmethod
    def model_name(self) -> str:
        """The model's name in reports."""

    @property
    @abstractmethod
    def data_name(self) -> str:
        """The data set's name in reports."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """The network before training, with the recipe's weights if it names any."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """All metrics on the test data; leaves the model and all random states as they were."""

    @abstractmethod
    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load a checkpoint file into the model, strictly."""

    @abstractmethod
    def estimate_batch_norm(self, model: nn.Module) -> int:
        """Replace the running statistics by those of ``recipe.batch_norm_images`` training images.

        Nothing else of the model changes, nor any random state; see ``detprune.networks.batch_norm``. Called only
        if the recipe asks for it and the model has such statistics.

        Returns:
            How many images these were: all there are, where the recipe asks for more.
        """

    def renew_batch_norm(self, model: nn.Module) -> int:
        """After hard pruning: estimate the statistics anew, if the recipe says so and there are any.

        Returns:
            How many images were seen.
        """
        if not self.recipe.batch_norm_images or not statistics_layers(model):
            return 0
        return self.estimate_batch_norm(model)

    @abstractmethod
    def loss_probe(self, model: nn.Module, images: int) -> Callable[[], float]:
        """What measures the task loss of the model, as it then is, on so many training images.

        In evaluation mode, on the same images every time; neither the model nor a random state changes.
        """

    def budget(self, model: nn.Module) -> Budget:
        """The recipe's budget, with what this kind of network leaves dense by default."""
        return self.recipe.budget

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """What the network is called with, and how, where whole channels are removed.

        Returns:
            Inputs of the size that is measured, and ``forward(model, *inputs)``, whose outputs count.

        Raises:
            InputError: channels cannot be removed from this task's networks.
        """
        raise InputError(
            f"whole channels (set: coupled_channels) cannot be removed in the task {self.recipe.task}; "
            "choose another set"
        )

    def sparsity_set(self, model: nn.Module) -> SparsitySet:
        """The recipe's set, with example inputs where it needs them."""
        chosen = self.recipe.set
        if not isinstance(chosen, CoupledChannels):
            return chosen
        inputs, forward = self.example_inputs(model)
        return replace(chosen, example_inputs=tuple(inputs), forward=forward)

    def finish_shrinking(self, network: nn.Module) -> None:
        """Set what this kind of network states about its channels apart from PyTorch's own modules."""

    def plan_notes(self, model: nn.Module) -> Sequence[str]:
        """What has to be known about the plan of what is pruned: printed with it, and in the report."""
        return ()

    def describe_network(self) -> dict[str, Any]:
        """Plain values from which ``Implementation.rebuild`` makes the dense network again, for ``detprune.load``."""
        return {}

    def load_network(self, path: Path) -> nn.Module:
        """The network in a checkpoint of the recipe's network, also one from which channels were removed.

        Raises:
            InputError: the file does not fit the recipe's network.
        """
        model = self.build_model()
        if (saved := saved_with_widths(path)) is not None:
            return resized_and_loaded(model, saved, path)
        self.load_weights(model, path)
        return model

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the report has to know about the numbers."""
        return ()


class Task(NetworkTask):
    """A recipe bound to a run directory: trains one kind of network too.

    The pipeline owns the order of the stages, hard pruning, proof and report; a task hands the
    training to its framework.
    """

    def __init__(self, recipe: Recipe, run: RunDirectory) -> None:
        super().__init__(recipe)
        self.run = run

    @property
    @abstractmethod
    def epochs(self) -> Mapping[str, int]:
        """Epochs of the stages dense, constrained and retrain."""

    @abstractmethod
    def train_dense(self, model: nn.Module) -> None:
        """Train the dense baseline in place; called only if it has epochs."""

    @abstractmethod
    def train_constrained(self, model: nn.Module) -> Pruner:
        """Train in place with a pruner bound to the optimizer; returns it before hard pruning."""

    @abstractmethod
    def retrain(self, model: nn.Module, pruner: Pruner | None) -> None:
        """Train in place on the task loss alone, with the pruner's masks."""

    def finish_hard_pruning(self, model: nn.Module) -> int:
        """What the pipeline calls after hard pruning, once a run; ``renew_batch_norm`` unless that is done.

        Returns:
            From how many images the statistics are.
        """
        return self.renew_batch_norm(model)

    def round_as_saved(self, network: nn.Module) -> None:
        """Round the final network in place to what ``pruned.pt`` holds, where that is less than its own precision.

        Called where no retraining follows hard pruning, for training may end with a rounded network by itself.
        """

    def check_before_training(self, model: nn.Module) -> None:
        """Refuse what the stages after the dense one would refuse, before it is trained.

        Args:
            model: as ``build_model`` gives it.

        Raises:
            InputError: a teacher that cannot be read or does not fit.
        """

    def constrained_optimizer(self, model: nn.Module) -> Optimizer | None:
        """An optimizer like that of constrained training, to see before training whether it goes with the rest.

        It is thrown away. None: that is not known before the stage begins.
        """
        return None

    def pruned_file(self, model: nn.Module, pruner: Pruner | None) -> object:
        """What ``pruned.pt`` holds, in the form that the framework's users load.

        Args:
            model: the final network.
            pruner: holds its masks; None for a network from which channels were removed.
        """
        if pruner is None:
            return {
                "task": self.recipe.task,
                "network": self.describe_network(),
                "widths": widths_of(model),
                "state_dict": plain_state_dict(model),
            }
        return plain_state_dict(model)

    def network_after(self, stage: str) -> nn.Module:
        """The network as a finished stage left it: dense, hard_pruned or final."""
        if stage == "final" and isinstance(self.recipe.set, CoupledChannels):
            return self.load_network(self.run.pruned)
        model = self.build_model()
        self.load_weights(model, self.run.checkpoints / f"{stage}.pt")
        return model

    def write_program(self, network: nn.Module) -> None:
        """Leave the final network beside ``pruned.pt`` in a form that plain PyTorch runs, where there is one."""

    def illustrate(self) -> None:
        """Leave ``pictures/pictures.json`` in the run directory, for the report."""


def check_teacher(file: Path | None) -> None:
    """Refuse a checkpoint of a teacher that is not there, before anything is trained."""
    if file is not None and not file.expanduser().is_file():
        raise InputError(
            f"distillation.teacher is {file}, but there is no such file; give a checkpoint, or leave it "
            "out, so that the dense network teaches"
        )


def plain_state_dict(model: nn.Module) -> dict[str, Any]:
    """The weights on the CPU, in a plain dictionary that loads without detprune."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
