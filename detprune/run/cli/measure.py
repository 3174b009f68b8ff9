"""``detprune measure``."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer


def measure(
    path: Annotated[Path, typer.Argument(help="A .pt file, or the folder of a finished run.")],
    against: Annotated[
        Path | None,
        typer.Option(help="A .pt file to compare with, or a run, whose dense network is taken."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images in pixels; that of the training by default."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads in every runtime.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images in one call.")] = 1,
    repeats: Annotated[int, typer.Option(min=3, help="Rounds, dense and pruned in turn.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what pruning gains: parameters, MACs, bytes, and milliseconds in PyTorch and ONNX Runtime."""
    from rich.console import Console

    from detprune.run.measuring.measurement import check_device, check_threads, measure_networks
    from detprune.run.measuring.sources import measured
    from detprune.run.measuring.table import measurement_table

    check_device(device)
    check_threads(threads)
    found = measured(path, against, size, batch)
    measurement = measure_networks(
        found.before,
        found.after,
        found.inputs,
        pt_bytes=found.pt_bytes,
        device=device,
        threads=threads,
        rounds=repeats,
        seconds=math.inf,
    )
    if as_json:
        names = {"name": found.pruned.name, "against": found.dense and found.dense.name}
        typer.echo(json.dumps({**names, **measurement.as_dict()}, indent=2))
    else:
        Console(markup=False).print(measurement_table(found.title, measurement))
