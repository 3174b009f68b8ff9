"""Counts of a model's nonzero weights: per layer, over the pruned tensors, and over all parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import torch
from torch import nn

from detprune.layers import Layer

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerSummary:
    """Counts of one weight tensor; ``target`` is its target sparsity, None where it stays dense."""

    name: str
    shape: tuple[int, ...]
    numel: int
    nonzero: int
    target: float | None

    @property
    def sparsity(self) -> float:
        """Zeros / total."""
        return 1 - self.nonzero / self.numel


@dataclass(frozen=True)
class Summary:
    """Counts of the live weights.

    Two pairs of figures, never to be mixed up: ``sparsity`` and ``compression`` are over the pruned
    tensors; ``model_sparsity`` and ``model_compression`` are over all parameters of the model.
    """

    layers: tuple[LayerSummary, ...]
    model_numel: int
    model_nonzero: int

    @property
    def pruned(self) -> tuple[LayerSummary, ...]:
        """The tensors that are pruned."""
        return tuple(layer for layer in self.layers if layer.target is not None)

    @property
    def numel(self) -> int:
        """Weights in the pruned tensors."""
        return sum(layer.numel for layer in self.pruned)

    @property
    def nonzero(self) -> int:
        """Nonzero weights in the pruned tensors."""
        return sum(layer.nonzero for layer in self.pruned)

    @property
    def sparsity(self) -> float:
        """Zeros / total over the pruned tensors; 0 where nothing is pruned."""
        return 1 - self.nonzero / self.numel if self.numel else 0.0

    @property
    def compression(self) -> float:
        """Total / nonzero over the pruned tensors; infinite where nothing is left, 1 where nothing is pruned."""
        if not self.numel:
            return 1.0
        return self.numel / self.nonzero if self.nonzero else float("inf")

    @property
    def model_sparsity(self) -> float:
        """Zeros / total over all parameters of the model."""
        return 1 - self.model_nonzero / self.model_numel

    @property
    def model_compression(self) -> float:
        """Total / nonzero over all parameters of the model."""
        return self.model_numel / self.model_nonzero if self.model_nonzero else float("inf")

    def table(self) -> "Table":
        """The counts as a table for a terminal."""
        from rich.table import Table  # imported here, because only printing needs rich

        table = Table(title="What is pruned, how far, and what is left dense")
        table.add_column("weight")
        for column in ("shape", "weights", "nonzero", "sparsity", "target"):
            table.add_column(column, justify="right")
        for layer in self.layers:
            target = "dense" if layer.target is None else f"{layer.target:.4f}"
            table.add_row(
                layer.name,
                "×".join(map(str, layer.shape)),
                f"{layer.numel:,}",
                f"{layer.nonzero:,}",
                f"{layer.sparsity:.4f}",
                target,
            )
        table.add_section()
        for what, numel, nonzero, compression in (
            ("pruned tensors", self.numel, self.nonzero, self.compression),
            ("all parameters", self.model_numel, self.model_nonzero, self.model_compression),
        ):
            share = f"{1 - nonzero / numel:.4f}"
            table.add_row(what, "", f"{numel:,}", f"{nonzero:,}", share, f"{compression:.2f}×")
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = StringIO()  # not the terminal, which may be closed or limited to ASCII
        Console(file=text, width=120, markup=False).print(self.table())
        return text.getvalue()


def summarize(model: nn.Module, layers: Sequence[Layer]) -> Summary:
    """Count the nonzero weights of every convolution, linear and pruned tensor, and of the model."""
    targets = {layer.name: layer.sparsity for layer in layers}
    rows = []
    model_numel = model_nonzero = 0
    for name, parameter in model.named_parameters():
        nonzero = int(torch.count_nonzero(parameter))
        model_numel += parameter.numel()
        model_nonzero += nonzero
        if name in targets or parameter.dim() >= 2:
            rows.append(
                LayerSummary(
                    name, tuple(parameter.shape), parameter.numel(), nonzero, targets.get(name)
                )
            )
    return Summary(tuple(rows), model_numel, model_nonzero)
