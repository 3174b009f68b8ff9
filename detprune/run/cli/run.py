"""``detprune run``. What takes long to import is imported by the command itself, so that ``--help`` is quick."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detprune.errors import InputError
from detprune.loggers import logger
from detprune.run.cli.options import Assignments
from detprune.run.cli.streams import quiet_threads

if TYPE_CHECKING:
    from detprune.run.adapter import Implementation
    from detprune.run.directory import RunDirectory
    from detprune.run.recipe import Recipe
    from detprune.run.records import Summary

LOGGER = logger("detprune")


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or the directory of a run to resume.")],
    assignments: Assignments = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory; runs/<name of the recipe> by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a run that was cut off.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run.")] = False,
) -> None:
    """Run all stages of a recipe: dense, constrained, hard pruning, retraining, proof, report."""
    from detprune.run.adapter import load_recipe
    from detprune.run.claim import set_aside
    from detprune.run.given import refuse_several
    from detprune.run.recipe import read_assignments

    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; leave one of them out")
    if recipe.is_dir():
        if not resume:
            raise InputError(
                f"{recipe} is a directory; add --resume to continue the run in it, or give a recipe file"
            )
        refuse_several(recipe)
        if out is not None and os.path.realpath(out) != os.path.realpath(recipe):
            raise InputError(
                f"--out {out} is not {recipe}, and a run continues in its own folder; leave --out out, or "
                f"begin a new run with {recipe / 'recipe.yaml'} --out {out}"
            )
        recipe, out = recipe / "recipe.yaml", recipe
    elif resume and not recipe.exists() and (earlier := set_aside(recipe)):
        raise InputError(
            f"{recipe} does not exist; the run that was to be replaced is kept in {earlier[0]}: rename it to have "
            "it back, or start the replacing run again with its recipe file"
        )
    implementation, resolved = load_recipe(recipe, read_assignments(assignments or []))
    directory = out or Path("runs") / resolved.name
    run_recipe(implementation, resolved, directory, resume=resume, overwrite=overwrite)


def run_recipe(
    implementation: "Implementation",
    recipe: "Recipe",
    directory: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Run all stages of a recipe in a folder, and print what came of it."""
    from rich.console import Console

    from detprune.run.claim import claim, located
    from detprune.run.cli.terminal import gains, headline, log_to_terminal

    place = located(directory)
    log_to_terminal()
    with (
        claim(place, recipe, resume=resume, overwrite=overwrite) as run_directory,
        run_directory.log_file(),
    ):
        summary = _logged(implementation, recipe, run_directory)
    if summary is not None:
        Console(markup=False).print(headline(summary))
        if (gained := gains(summary)) is not None:
            Console(markup=False).print(gained)
        typer.echo(f"report: {run_directory.path / 'report.html'}")
        typer.echo(f"pruned model: {run_directory.pruned}")


def _logged(
    implementation: "Implementation", recipe: "Recipe", run_directory: "RunDirectory"
) -> "Summary | None":
    try:
        with quiet_threads():
            return _run(implementation, recipe, run_directory)
    except (KeyboardInterrupt, SystemExit):
        LOGGER.warning("interrupted; continue with: detprune run %s --resume", run_directory.path)
        raise
    except Exception:
        LOGGER.debug("the run failed", exc_info=True)
        raise


def _run(
    implementation: "Implementation", recipe: "Recipe", run_directory: "RunDirectory"
) -> "Summary | None":
    from detprune.run.pipeline import run_stages

    task = implementation.task(recipe, run_directory)
    command = shlex.join(["detprune", *sys.argv[1:]])
    with run_directory.storage_errors():
        summary = run_stages(task, recipe, run_directory, command)
        if summary is not None:
            from detprune.run.report import write_report

            write_report(run_directory.path)
    return summary
