"""Tasks: the interface that an adapter implements for one kind of network."""

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
from detprune.errors import InputError, NonFiniteError
from detprune.latency_targets import LatencyTarget
from detprune.networks.batch_norm import statistics_layers
from detprune.networks.finite import check_finite
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.metrics import Metric
from detprune.run.recipe import Recipe
from detprune.sets import SparsitySet


class NetworkTask(ABC):
    """The network and data of a recipe: it builds, loads and measures networks, and needs no run directory."""

    recipe_type: ClassVar[type[Recipe]] = Recipe
    """Type of the recipe."""

    recipe: Recipe

    times: Path | None = None
    """The table of a latency budget, once the run has measured it."""

    def __init__(self, recipe: Recipe) -> None:
        if not isinstance(recipe, self.recipe_type):
            raise InputError(
                f"the recipe is a {type(recipe).__name__}, not a {self.recipe_type.__name__}"
            )
        self.recipe = recipe

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics that ``evaluate`` returns, with unit and direction; the first is the headline metric.

        A class variable where they are the same for all recipes.
        """

    @property
    def metric(self) -> str:
        """Name of the headline metric."""
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
        """Build the network before training, with the recipe's weights if it names any."""

    @abstractmethod
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Measure all metrics on the test data; the model and all random states stay as they were."""

    @abstractmethod
    def load_weights(self, model: nn.Module, path: Path) -> None:
        """Load a checkpoint file into the model, strictly."""

    @abstractmethod
    def estimate_batch_norm(self, model: nn.Module) -> int:
        """Replace the running statistics by those of ``recipe.batch_norm_images`` training images.

        Nothing else of the model changes, nor any random state; see ``detprune.networks.batch_norm``. It is called
        only if the recipe asks for it and the model has such statistics.

        Returns:
            Number of images used: all images, if the recipe asks for more than there are.
        """

    def renew_batch_norm(self, model: nn.Module) -> int:
        """Estimate the statistics anew after hard pruning, if the recipe asks for it and there are any.

        Returns:
            Number of images used.
        """
        if not self.recipe.batch_norm_images or not statistics_layers(model):
            return 0
        return self.estimate_batch_norm(model)

    @abstractmethod
    def loss_probe(self, model: nn.Module, images: int) -> Callable[[], float]:
        """Return a function that measures the present task loss of the model, on ``images`` training images.

        It runs in evaluation mode, on the same images at every call; neither the model nor a random state changes.
        """

    def budget(self, model: nn.Module) -> Budget:
        """``stated_budget``, with the default exclusions of this kind of network."""
        return self.stated_budget

    @property
    def stated_budget(self) -> Budget:
        """The recipe's budget; one of a latency names the table that the run has measured, once there is one."""
        if self.times is None:
            return self.recipe.budget
        return replace(self.recipe.budget, target=LatencyTarget(table=str(self.times.absolute())))

    def example_inputs(self, model: nn.Module) -> tuple[Sequence[object], Forward]:
        """Example inputs of the network, and the function that calls it with them, for the removal of whole channels.

        Returns:
            Inputs of the size that is measured, and ``forward(model, *inputs)``, whose outputs must not change.

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
        """Update the numbers of channels that this kind of network stores outside of PyTorch's own modules."""

    def plan_notes(self, model: nn.Module) -> Sequence[str]:
        """Notes on the plan of pruned weights; they are printed with the plan, and shown in the report."""
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
        """Notes on the numbers, for readers of the report."""
        return ()

    def data_facts(self) -> Mapping[str, str]:
        """What names the data: other data give other facts, the same data in another folder give the same.

        A run is resumed with the data that it began with, or refused.
        """
        return {}


class Task(NetworkTask):
    """A recipe bound to a run directory: a ``NetworkTask`` that also trains.

    The pipeline does the order of the stages, hard pruning, verification and report; a task trains with its
    framework.
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
        """Train in place with a pruner bound to the optimizer; return the pruner before hard pruning."""

    @abstractmethod
    def retrain(self, model: nn.Module, pruner: Pruner | None) -> None:
        """Train in place on the task loss alone, with the pruner's masks."""

    def finish_hard_pruning(self, model: nn.Module) -> int:
        """Finish hard pruning; called once a run. By default it is ``renew_batch_norm``.

        Returns:
            Number of images from which batch-norm statistics were estimated.
        """
        return self.renew_batch_norm(model)

    def round_as_saved(self, network: nn.Module) -> None:
        """Round the final network in place to the precision of ``pruned.pt``, if that is lower than its own.

        It is called if no retraining follows hard pruning; retraining may end with a rounded network by itself.
        """

    def check_before_training(self, model: nn.Module) -> None:
        """Refuse, before any training, what the stages after the dense one would refuse.

        Args:
            model: the result of ``build_model``.

        Raises:
            InputError: for example, a teacher cannot be read or does not fit.
        """

    def constrained_optimizer(self, model: nn.Module) -> Optimizer | None:
        """An optimizer like that of constrained training, to check before training whether the method works with it.

        It is thrown away. None: the optimizer is not known before the stage starts.
        """
        return None

    def pruned_file(self, model: nn.Module, pruner: Pruner | None) -> object:
        """The content of ``pruned.pt``, in the form that users of the framework load.

        Args:
            model: the final network.
            pruner: the pruner with the masks; None for a network from which channels were removed.
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
        """The network after a finished stage: dense, hard_pruned or final."""
        if stage == "final" and isinstance(self.recipe.set, CoupledChannels):
            return self.load_network(self.run.pruned)
        model = self.build_model()
        self.load_weights(model, self.run.checkpoints / f"{stage}.pt")
        return model

    def write_program(self, network: nn.Module) -> None:
        """Write the final network next to ``pruned.pt`` as a program that plain PyTorch runs, if the task has one."""

    def illustrate(self) -> None:
        """Write ``pictures/pictures.json`` into the run directory, for the report."""


def starting_network(task: NetworkTask) -> nn.Module:
    """The network that the recipe starts with.

    Raises:
        InputError: its weights hold NaN or infinities, or what ``build_model`` raises.
    """
    model = task.build_model()
    try:
        check_finite(model, "the network that the recipe starts with")
    except NonFiniteError as error:
        raise InputError(f"{error}; give another checkpoint as model.weights") from error
    return model


def check_teacher(file: Path | None) -> None:
    """Refuse a teacher's checkpoint that does not exist, before anything is trained."""
    if file is None or file.expanduser().is_file():
        return
    wrong = "which is a folder" if file.expanduser().is_dir() else "but there is no such file"
    raise InputError(
        f"distillation.teacher is {file}, {wrong}; give the file of a checkpoint, or leave it out, so that the dense "
        "network teaches"
    )


def plain_state_dict(model: nn.Module) -> dict[str, Any]:
    """The weights on the CPU, in a plain dictionary that loads without detprune."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
