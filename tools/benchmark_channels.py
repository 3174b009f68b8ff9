"""The gain of whole-channel pruning: size and latency of detectors, dense and with a share of their MACs, in turn.

    python tools/benchmark_channels.py [--macs 0.4] [--size 320] [--rounds 30] [--name yolov8n] [--markdown]

The networks of all YOLO families are untrained, because neither size nor speed depends on training. They run on one
thread; times are processor times, which other programs on the machine disturb less. "Seconds" is the time of analysis,
projection and removal, without the imports of the first network.

Widths are multiples of 16 here: processors with AVX-512 work on 16 channels at a time, so that 24 cost them as much
as 32.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

import detprune as dp

# isort: split
from detprune_yolo.channels import detector_set, smaller_detector
from detprune_yolo.forward import example
from detprune_yolo.weights.checkpoints import pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics.nn.tasks import DetectionModel

from detprune.run.measuring import Measurement, measure_networks

FAMILIES = (
    "yolov3-tiny",
    "yolov3-spp",
    "yolov5n",
    "yolov6n",
    "yolov8n",
    "yolov9t",
    "yolov10n",
    "yolo11n",
    "yolo12n",
    "yolo26n",
)
COLUMNS = (
    "network",
    "parameters, M",
    "MACs, G",
    "left",
    "MB of .pt",
    "MB of .onnx",
    "ONNX Runtime, ms",
    "ratio",
    "quartiles",
    "PyTorch, ms",
    "ratio",
    "seconds",
)


def network_of(name: str) -> Any:
    """An untrained detector whose batch norms scale their channels differently, as after training."""
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", verbose=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
    return model.eval()


def row_of(
    name: str, budget: dp.Budget, size: int, round_to: int, rounds: int, seconds: float
) -> list[str]:
    """The row of one network."""
    dense = network_of(name)
    model = network_of(name)
    began = time.process_time()
    channels = detector_set(dp.CoupledChannels(round_to=round_to), model, size)
    pruner = dp.Pruner(model, None, dp.OneShot(), channels, budget)
    pruner.hard_prune()
    small = smaller_detector(pruner)
    took = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "dense.pt", Path(folder) / "pruned.pt"
        torch.save(pruned_checkpoint(dense, None), before)
        save_checkpoint(after, pruned_checkpoint(small, None))
        files = before.stat().st_size, after.stat().st_size
    found = measure_networks(
        dense,
        small,
        (example(dense, size),),
        pt_bytes=files,
        rounds=rounds,
        seconds=seconds,
        clock=time.process_time,
    )
    return [name, *cells_of(found), f"{took:.1f}"]


def cells_of(found: Measurement) -> list[str]:
    """Sizes and times as text."""
    dense, small = found.dense, found.pruned
    if dense is None:
        raise TypeError("there is nothing to compare with")

    def both(key: str, unit: float, digits: int) -> str:
        values = [getattr(size, key) or float("nan") for size in (dense, small)]
        return " → ".join(f"{value / unit:.{digits}f}" for value in values)

    pytorch, onnx = found.latencies[:2]
    cells = [
        both("parameters", 1e6, 2),
        both("macs", 1e9, 2),
        f"{small.macs / dense.macs:.3f}",
        both("pt_bytes", 1e6, 1),
        both("onnx_bytes", 1e6, 1),
    ]
    for latency in (onnx, pytorch):
        if latency.note is not None or latency.quartiles is None:
            cells += [latency.note or "", "", ""]
            continue
        first, third = latency.quartiles
        cells += [f"{latency.dense_ms:.1f} → {latency.pruned_ms:.1f}", f"{latency.ratio:.2f}"]
        cells += [f"{first:.2f} to {third:.2f}"]
    return cells[:-1]


def main(
    macs: Annotated[float, typer.Option(help="Share of the MACs that is left.")] = 0.4,
    size: Annotated[int, typer.Option(help="Side of the image in pixels.")] = 320,
    rounds: Annotated[int, typer.Option(help="Rounds, dense and pruned in turn.")] = 30,
    seconds: Annotated[float, typer.Option(help="Most seconds for each runtime.")] = 60.0,
    round_to: Annotated[int, typer.Option(help="Number that widths are multiples of.")] = 16,
    allocation: Annotated[str, typer.Option(help="uniform or global.")] = "uniform",
    names: Annotated[
        list[str] | None, typer.Option("--name", help="Networks; all families without it.")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="Rows for docs/results.md.")] = False,
) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    few = dp.CoupledChannels(torch.zeros(1, 3, 8, 8), round_to=1)
    few.plan(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 3, 3)))
    budget = dp.Budget(macs=macs, allocation=allocation)  # type: ignore[arg-type]
    table = Table(
        *COLUMNS,
        title=f"{macs:g} of the MACs, {allocation}, widths × {round_to}, {size} px, one thread",
    )
    rows = []
    for name in names or FAMILIES:
        rows.append(row_of(name, budget, size, round_to, rounds, seconds))
        table.add_row(*rows[-1])
        if markdown:
            typer.echo("| " + " | ".join(rows[-1]) + " |")
    if not markdown:
        Console(width=180).print(table)


if __name__ == "__main__":
    typer.run(main)
