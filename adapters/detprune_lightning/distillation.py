"""Distillation: the dense network teaches the one that is pruned (Hinton et al. 2015, "Distilling the
knowledge in a neural network", section 2)."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from detprune.errors import InputError


@dataclass(frozen=True)
class Distillation:
    """Mixes the loss with T² KL(teacher ‖ student) of the logits at temperature T.

    Attributes:
        weight: share of the teacher's term in the loss; the labels' term has the rest.
        temperature: T; above 1 the teacher's smaller probabilities count for more.
        teacher: checkpoint of the teacher, a network of the same architecture; by default it is the dense network
            that is pruned.
    """

    weight: float = 0.5
    temperature: float = 4.0
    teacher: Path | None = None

    def __post_init__(self) -> None:
        if not (0 < self.weight <= 1 and self.temperature > 0):
            raise InputError(
                f"distillation: weight is {self.weight}, temperature is {self.temperature}; "
                "allowed are 0 < weight ≤ 1 and temperature > 0"
            )

    def divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """T² KL between the classes' softmax, averaged over everything else.

        Args:
            logits, taught: the student's and the teacher's, (N, classes, …).
        """
        student = functional.log_softmax(logits / self.temperature, dim=1)
        teacher = functional.log_softmax(taught / self.temperature, dim=1)
        each = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
        return self.temperature**2 * each.mean()


class Teacher:
    """A frozen copy of the dense network; no ``nn.Module``, so that the student's checkpoints do not hold it."""

    def __init__(
        self, network: nn.Module, spec: Distillation, *, channels_last: bool = False
    ) -> None:
        self.spec = spec
        self._network = copy.deepcopy(network).eval().requires_grad_(False)
        if channels_last:
            self._network.to(memory_format=torch.channels_last)

    def mix(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The loss of the labels, mixed with the divergence from the teacher's logits for the same images.

        Args:
            loss: the loss of the labels.
            logits: of the student, (N, classes, …).
            images: the images of these logits.
        """
        if next(self._network.parameters()).device != images.device:  # before the first step
            self._network.to(images.device)
        with torch.no_grad():
            taught = self._network(images)
        if isinstance(taught, tuple):  # (logits, auxiliary branch); only the logits teach
            taught = taught[0]
        weight = self.spec.weight
        return (1 - weight) * loss + weight * self.spec.divergence(logits, taught)
