"""The cost of pruning in Ultralytics' trainer: whole epochs with and without it, in turn.

    python tools/benchmark_detector.py [--rounds 5] [--images 1600] [--device cpu]

Prints the ratio of epoch times to plain Ultralytics training, by the clock and in processor time,
which other programs on the machine disturb less, and the peak memory of each in a process of its
own. Full-width YOLOv3-tiny on drawn shapes at 128 px in batches of 16; no validation. An epoch pays
once for Z, the multipliers and the sidecar, so that the ratio falls with the number of images.
"""

import statistics
import subprocess
import sys
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
import detprune_yolo
from detprune_yolo.data.drawing import DrawnSet, cached

# isort: split
import itertools

from ultralytics.models.yolo.detect import DetectionTrainer

PLAIN = "plain Ultralytics"
METHODS: dict[str, dp.Method | None] = {
    PLAIN: None,
    "admm": dp.ADMM(rho=0.5),
    "slr": dp.SLR(rho="auto", max_step=1.0),
    "magnitude": dp.Magnitude(),
    "sas_admm": dp.SASADMM(beta=0.2, nu=10.0),
}


def epoch_seconds(
    name: str, epochs: int, images: int, device: str, folder: Path
) -> list[tuple[float, float]]:
    """Seconds of every epoch but the last, by the clock and in processor time."""
    method = METHODS[name]
    kind: Any = DetectionTrainer
    if method is not None:
        kind = detprune_yolo.constrained(method, dp.Budget(compression=3.33))
    marks: list[tuple[float, float]] = []

    def mark(trainer: Any) -> None:
        if device != "cpu":
            torch.cuda.synchronize()
        marks.append((time.perf_counter(), time.process_time()))

    trainer = kind(
        overrides={
            "model": "yolov3-tiny.yaml",
            "data": str(cached(DrawnSet(train=images, val=100, size=128))),
            "imgsz": 128,
            "batch": 16,
            "nbs": 16,
            "epochs": epochs + 2,
            "val": False,
            "plots": False,
            "verbose": False,
            "optimizer": "SGD",
            "lr0": 0.002,
            "warmup_epochs": 0,
            "workers": 0,
            "device": device,
            "project": str(folder),
            "name": name.replace(" ", "_"),
            "exist_ok": True,
        }
    )
    trainer.add_callback("on_train_epoch_start", mark)
    # an epoch runs from its start to that of the next; the last one, which validates, is not counted
    trainer.train()
    return [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(marks)]


def main(
    rounds: Annotated[int, typer.Option(help="Rounds, in each of which every method runs.")] = 5,
    epochs: Annotated[int, typer.Option(help="Epochs counted per round.")] = 2,
    images: Annotated[int, typer.Option(help="Training images.")] = 1600,
    names: Annotated[
        list[str] | None, typer.Option("--method", help="Methods to measure; all without it.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or the number of a GPU.")] = "cpu",
    memory_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure and print."""
    chosen = [PLAIN, *(names or [name for name in METHODS if name != PLAIN])]
    if unknown := set(chosen) - set(METHODS):
        raise typer.BadParameter(f"no method {sorted(unknown)}; choose from {sorted(METHODS)}")
    with tempfile.TemporaryDirectory() as folder:
        if memory_of:
            epoch_seconds(memory_of, 1, images, device, Path(folder))
            # not ru_maxrss, which starts with the value of the launching process
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
            if device != "cpu":
                peak = torch.cuda.max_memory_allocated()
            typer.echo(f"PEAK {peak}")
            return
        rounds_of: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        for _ in range(rounds):
            for name in chosen:
                times = epoch_seconds(name, epochs, images, device, Path(folder))
                clock = statistics.median(t for t, _ in times)
                rounds_of[name].append((clock, statistics.median(t for _, t in times)))
    table = Table(title=f"YOLOv3-tiny, {images} images of 128 px, {device}, {rounds} rounds")
    for column in (
        "training",
        "s per epoch",
        "ratio",
        "range",
        "of the CPU",
        "range",
        "peak memory",
    ):
        table.add_column(column, justify="right")
    for name in chosen:
        output = subprocess.run(
            [sys.executable, __file__, "--memory-of", name, "--images", "64", "--device", device],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peak = int(output.split("PEAK ")[1])
        cells = []
        for kind in (0, 1):
            pairs = zip(rounds_of[name], rounds_of[PLAIN], strict=True)
            ratios = [own[kind] / plain[kind] for own, plain in pairs]
            cells += [f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f} to {max(ratios):.3f}"]
        seconds = statistics.median(clock for clock, _ in rounds_of[name])
        table.add_row(name, f"{seconds:.2f}", *cells, f"{peak / 2**20:,.0f} MiB")
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
