"""``detprune profile``."""

from pathlib import Path
from typing import Annotated

import typer

from detprune.run.cli.options import file_place, output_place


def profile(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="A .pt file, or the folder of a finished run.")],
    out: Annotated[
        Path | None,
        typer.Option(
            parser=file_place, metavar="PATH", help="File for the table, as YAML; must not exist."
        ),
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="A table that was filled in: check it against the network.")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            parser=output_place,
            metavar="PATH",
            help="Folder for ONNX files to be timed on another device.",
        ),
    ] = None,
    measure: Annotated[bool, typer.Option(help="Fill the table in by measurements here.")] = True,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    runtime: Annotated[
        str, typer.Option(help="onnxruntime, openvino, tensorrt or torch.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option(min=1, help="Processor threads.")] = 1,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the images in pixels; that of the training by default."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in one call.")] = 1,
    precision: Annotated[str, typer.Option(help="fp32, or fp16 for torch on a GPU.")] = "fp32",
    round_to: Annotated[int, typer.Option(min=1, help="Widths are multiples of it.")] = 8,
) -> None:
    """Write the table of layers and times that a latency budget needs, or check one that was filled in."""
    from rich.console import Console

    from detprune.errors import InputError
    from detprune.latency_targets import LatencyTarget
    from detprune.run.latency.command import check_file, write_files

    if check is not None and out is None:
        unused = [
            name
            for name in context.params
            if name not in ("path", "out", "check")
            and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
        ]
        if unused:
            written = {"measure": "--measure" if measure else "--no-measure"}
            options = ", ".join(written.get(n, f"--{n.replace('_', '-')}") for n in unused)
            raise InputError(
                f"{options} would have no effect beside --check, for the table says how its times were taken; leave "
                "that out, or write a new table with --out"
            )
        Console(markup=False).print(check_file(path, check))
    elif out is not None and check is None:
        target = LatencyTarget(device, runtime, threads, size, batch, precision)
        for line in write_files(path, out, target, round_to, measure=measure, onnx=onnx):
            typer.echo(line)
    else:
        raise InputError(
            "give --out, the file for a new table, or --check, a table that is filled in"
        )
