"""The commands for a finished run: ``detprune report`` and ``detprune export``."""

from pathlib import Path
from typing import Annotated

import typer

from detprune.errors import InputError, unknown
from detprune.run.cli.options import output_place

_FIRST_BYTES = {"onnx": b"\x08"}
"""First bytes of the files of an export format, so that no file of another kind is replaced by one."""


def report(run_dir: Annotated[Path, typer.Argument(help="A finished run.")]) -> None:
    """Draw the report of a finished run again."""
    from detprune.run.report import write_report

    try:
        page = write_report(run_dir)
    except PermissionError as error:
        raise InputError(
            f"cannot write {error.filename}: {error.strerror}; a report lies in its run's folder, so copy the run "
            "(cp -r) to a place of yours, and report there"
        ) from error
    typer.echo(str(page))


def export(
    run_dir: Annotated[Path, typer.Argument(help="A finished run.")],
    file_format: Annotated[str, typer.Option("--format", help="Format, such as onnx.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Integers of 8 bits, calibrated on training images.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=output_place, metavar="PATH", help="File or folder; beside pruned.pt by default."
        ),
    ] = None,
) -> None:
    """Write the pruned network of a run in another format, and check it against the original."""
    from detprune.files import check_output_path
    from detprune.run.adapter import implementation
    from detprune.run.given import refuse_several, tell_exchanged
    from detprune.run.recipe import read_yaml

    recipe = run_dir / "recipe.yaml"
    refuse_several(run_dir)
    if not (run_dir / "pruned.pt").is_file() or not recipe.is_file():
        raise InputError(
            f"{run_dir} holds no finished run (recipe.yaml and pruned.pt); give the directory that "
            "detprune run wrote, or finish it with --resume"
        )
    if out is not None:
        begins = _FIRST_BYTES.get(file_format)
        check_output_path(
            *(out, "--out"),
            makes_folder=True,
            replaces=lambda path: begins is not None and _head(path) == begins,
        )
    name = read_yaml(recipe).get("task")
    if not isinstance(name, str):
        raise InputError(f"{recipe}: task is missing; restore the recipe that the run started with")
    found = implementation(name)
    formats = found.int8 if int8 else found.formats
    if not formats:
        precision = " in int8" if int8 and found.formats else ""
        raise InputError(
            f"{run_dir} is a run of the task {name!r}, which exports nothing{precision}"
        )
    if file_format not in formats:
        raise InputError(
            f"{unknown('export format', file_format, formats)}; for another one, give {run_dir / 'pruned.pt'} to the "
            "framework's own exporter"
        )
    tell_exchanged(run_dir)
    for line in formats[file_format](run_dir, out):
        typer.echo(line)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)
