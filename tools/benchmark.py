"""The cost of pruning, as ratios measured side by side in one process.

    python tools/benchmark.py [--device cpu|cuda] [--repeats 15]

Every pair is timed in turn (A B A B …) after a warm-up; the ratio printed is the median of the ratios
of neighbouring runs, so that it holds when the machine's speed drifts.
"""

import copy
import platform
import statistics
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.models import resnet18

import detprune as dp
from detprune.methods.penalty import add_pull, pull_towards

EVICTING_BYTES = 1 << 29
"""Size of a tensor that no cache can hold."""

LARGE_LAYER = (22_624, 2_048)
"""The classifier layer of Ultra-Fast-Lane-Detection: 46.3 M weights."""


def paired(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int, device: torch.device
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios ours / theirs of neighbouring runs."""
    times: tuple[list[float], list[float]] = ([], [])
    # In training, forward and backward run in between, so the timed code must not find its data in the cache.
    other_work = torch.zeros(EVICTING_BYTES // 4, device=device)
    for repeat in range(repeats + 2):
        for function, kept in zip((ours, theirs), times, strict=True):
            other_work.add_(1)
            _wait(device)
            began = time.perf_counter()
            function()
            _wait(device)
            if repeat >= 2:
                kept.append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def penalty(
    device: torch.device, repeats: int
) -> list[tuple[str, str, tuple[float, float, float]]]:
    """The per-step penalty over ResNet-18's 11.7 M weights, against its floor and its usual form."""
    model = resnet18().to(device)
    weights = [p for p in model.parameters() if p.dim() >= 2]
    anchors = [torch.randn_like(w) for w in weights]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    written = [torch.randn_like(w) for w in weights]

    def ours() -> None:
        add_pull(weights, anchors, [1e-6] * len(weights))

    def proximal() -> None:
        pull_towards(weights, anchors, [1e-6] * len(weights))

    @torch.no_grad()
    def floor() -> None:
        for weight, anchor, out in zip(weights, anchors, written, strict=True):
            torch.add(weight, anchor, out=out)

    def autograd() -> None:
        loss = torch.zeros((), device=device)
        for weight, anchor in zip(weights, anchors, strict=True):
            loss = loss + 1e-6 / 2 * torch.norm(weight - anchor) ** 2
        loss.backward()

    return [
        ("penalty per step", "read two, write one", paired(ours, floor, repeats, device)),
        (
            "proximal penalty per step",
            "read two, write one",
            paired(proximal, floor, repeats, device),
        ),
        ("usual autograd penalty", "read two, write one", paired(autograd, floor, 5, device)),
    ]


def projection(
    device: torch.device, repeats: int
) -> list[tuple[str, str, tuple[float, float, float]]]:
    """Unstructured projection of one large layer."""
    weight = torch.randn(LARGE_LAYER, device=device)
    kept = round(0.1 * weight.numel())
    unstructured = dp.Unstructured()

    def ours() -> Tensor:
        return unstructured.project(weight, sparsity=0.9)

    def mask() -> Tensor:
        return unstructured.mask(weight, sparsity=0.9)

    if device.type == "cuda":
        copy_of_it = torch.empty_like(weight)
        name = "one read plus one write"
        return [
            (
                "projection 46.3 M",
                name,
                paired(ours, lambda: copy_of_it.copy_(weight), repeats, device),
            )
        ]
    array = weight.numpy().ravel()

    def partition() -> object:
        return np.partition(np.abs(array), array.size - kept)

    def topk() -> object:
        return torch.topk(weight.flatten().abs(), kept)

    name = "numpy partition of |W|"
    return [
        ("projection 46.3 M", name, paired(ours, partition, repeats, device)),
        ("mask 46.3 M", name, paired(mask, partition, repeats, device)),
        ("torch.topk", name, paired(topk, partition, 2, device)),
    ]


def whole_step(
    device: torch.device, repeats: int, method: dp.Method
) -> tuple[str, str, tuple[float, float, float]]:
    """Forward, backward and step of ResNet-18 at 128 px, batch 16, with and without the pruner."""
    model = resnet18().to(device)
    images, labels = (
        torch.randn(16, 3, 128, 128, device=device),
        torch.randint(1000, (16,), device=device),
    )

    def make(network: nn.Module, pruned: bool) -> Callable[[], None]:
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
        pruner = (
            dp.Pruner(network, optimizer, method, budget=dp.Budget(compression=10))
            if pruned
            else None
        )

        def step() -> None:
            loss = nn.functional.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if pruner is not None:
                pruner.observe(loss)

        return step

    ours, theirs = make(copy.deepcopy(model), pruned=True), make(copy.deepcopy(model), pruned=False)
    name = f"whole step, {type(method).__name__}"
    return name, "the same without pruner", paired(ours, theirs, repeats, device)


def tensors_kept(method: dp.Method) -> float:
    """Bytes that a pruner keeps, per byte of pruned weights."""
    model = resnet18()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    pruner = dp.Pruner(model, optimizer, method, budget=dp.Budget(compression=10))
    weights = sum(layer.weight.numel() * layer.weight.element_size() for layer in pruner.layers)
    tensors = pruner.state_dict()["state"]["tensors"].values()
    size = sum(t.numel() * t.element_size() for kind in tensors for t in kind.values())
    if method.extrapolates:  # W is stored while the gradient is taken at Ŵ
        size += weights
    return float(size / weights)


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, help="Counted pairs of every comparison.")] = 15,
) -> None:
    """Measure and print."""
    where = torch.device(device)
    torch.manual_seed(0)
    rows = [*penalty(where, repeats), *projection(where, repeats)]
    for method in (dp.SLR(), dp.ADMM(), dp.SASADMM(), dp.Magnitude()):
        rows.append(
            whole_step(where, 6 * repeats, method)
        )  # a few per cent need more pairs to be seen
    table = Table(
        title=f"{_machine(where)}; torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    for column in ("what", "against"):
        table.add_column(column)
    for column in ("ms", "ms of that", "ratio"):
        table.add_column(column, justify="right")
    for what, against, (ours, theirs, ratio) in rows:
        table.add_row(what, against, f"{1e3 * ours:.2f}", f"{1e3 * theirs:.2f}", f"{ratio:.3f}")
    console = Console(width=110)
    console.print(table)
    kept = {
        type(m).__name__: tensors_kept(m)
        for m in (dp.ADMM(), dp.SLR(), dp.SASADMM(), dp.Magnitude())
    }
    console.print(
        "weight-sized tensors kept: " + ", ".join(f"{n} {k:.0f}" for n, k in kept.items())
    )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {len(names) or '?'} cores"


if __name__ == "__main__":
    typer.run(main)
