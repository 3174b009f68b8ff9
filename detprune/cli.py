"""The command line: ``detprune run | study | progressive | suggest | validate | list | report | measure …``.

Exit codes: 0 done; 1 the run failed (diverged, or the saved file does not prove); 2 bad input; 128 + its number
after a signal (Ctrl-C 130, SIGTERM 143).
"""

import os
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from detprune.claim import claim, located, set_aside
from detprune.errors import DetpruneError, InputError
from detprune.evaluation import Assignments
from detprune.measuring.command import measure
from detprune.methods import METHODS
from detprune.reading import check_output_path
from detprune.recipe import Recipe, dump_yaml, read_assignments, read_yaml
from detprune.recipe.components import SETS_BY_NAME
from detprune.rundir import LOGGER, RunDirectory, atomic, is_main_process
from detprune.signals import exit_on_signals
from detprune.storage import plain_refusals
from detprune.task import Adapter, adapter_entry_points, load_adapter, load_entry, load_recipe
from detprune.terminal import (
    first_line,
    gains,
    headline,
    listing,
    log_to_terminal,
    prepare_streams,
    print_results,
)

app = typer.Typer(
    help="Prune networks under constraints, inside the trainers you already use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
evaluate_app = typer.Typer(
    help="Measure a model or a file of predictions; prints JSON.", no_args_is_help=True
)
app.add_typer(evaluate_app, name="evaluate")
data_app = typer.Typer(help="Make a data set that the project draws itself.", no_args_is_help=True)
app.add_typer(data_app, name="data")
Folder = Annotated[
    Path | None, typer.Option(help="Folder of all runs; runs/<name in the file> by default.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time; one per GPU by default.")]
_GROUPS = {"evaluate": evaluate_app, "data": data_app}


def main() -> None:
    """Entry point of the ``detprune`` command."""
    prepare_streams()
    try:
        with exit_on_signals(), plain_refusals():
            _check_working_directory()
            _add_adapter_commands()
            app()
    except InputError as error:
        _complain(error, code=2)
    except DetpruneError as error:
        _complain(error, code=1)


@app.command()
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
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if recipe.is_dir():
        if not resume:
            raise InputError(
                f"{recipe} is a directory; to continue a run say --resume, else name a recipe"
            )
        recipe, out = recipe / "recipe.yaml", out or recipe
    elif resume and not recipe.exists() and (earlier := set_aside(recipe)):
        raise InputError(
            f"{recipe} is not there; the run that was to be replaced is kept in {earlier[0]}: rename it to "
            "have it back, or start the run that replaces it with its recipe"
        )
    adapter, resolved = load_recipe(recipe, read_assignments(assignments or []))
    if adapter.task is None:
        raise InputError(f"the adapter {resolved.task!r} runs no recipes")
    directory = located(out or Path("runs") / resolved.name)
    log_to_terminal()
    with (
        claim(directory, resolved, resume=resume, overwrite=overwrite) as run_directory,
        run_directory.log_file(),
    ):
        summary = _logged(adapter, resolved, run_directory)
    if is_main_process():
        Console(markup=False).print(headline(summary))
        if (gained := gains(summary)) is not None:
            Console(markup=False).print(gained)
        typer.echo(f"report: {run_directory.path / 'report.html'}")
        typer.echo(f"pruned model: {run_directory.pruned}")


def _logged(adapter: Adapter, recipe: Recipe, run_directory: RunDirectory) -> dict[str, Any]:
    try:
        return _run(adapter, recipe, run_directory)
    except (KeyboardInterrupt, SystemExit):
        LOGGER.warning("interrupted; continue with: detprune run %s --resume", run_directory.path)
        raise
    except Exception:
        LOGGER.debug("the run failed", exc_info=True)
        raise


def _run(adapter: Adapter, recipe: Recipe, run_directory: RunDirectory) -> dict[str, Any]:
    from detprune.pipeline import run_stages  # training needs torch warmed up; --help does not

    if adapter.task is None:
        raise InputError(f"the adapter {recipe.task!r} runs no recipes")
    task = adapter.task(recipe, run_directory)
    command = shlex.join(["detprune", *sys.argv[1:]])
    with run_directory.storage_errors():
        summary = run_stages(task, recipe, run_directory, command)
        if is_main_process():
            from detprune.report import write_report  # matplotlib only where a report is drawn

            write_report(run_directory.path)
    return summary


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="A study: a recipe, and what is varied in it.")],
    assignments: Assignments = None,
    out: Folder = None,
    jobs: Jobs = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Only runs of these names, wildcards allowed: 'slr_10x_*'; may be repeated."
        ),
    ] = None,
) -> None:
    """Run methods × rates × models × seeds under equal epochs; started again, it goes on."""
    from detprune.study import run_study  # matplotlib only where a report is drawn

    log_to_terminal()
    directory, complete = run_study(file, out, read_assignments(assignments or []), jobs, only)
    print_results(directory, complete)


@app.command()
def progressive(
    file: Annotated[Path, typer.Argument(help="A recipe, and the rates through which it goes.")],
    assignments: Assignments = None,
    out: Folder = None,
    jobs: Jobs = None,
) -> None:
    """Prune step by step, always from the best networks so far; started again, it goes on."""
    from detprune.progressive import run_progressive  # matplotlib only where a report is drawn

    log_to_terminal()
    directory, complete = run_progressive(file, out, read_assignments(assignments or []), jobs)
    print_results(directory, complete)


@app.command()
def suggest(
    recipe: Annotated[Path, typer.Argument(help="A recipe whose model has weights.")],
    out: Annotated[Path, typer.Option(help="File for the recipe with the plan.")],
    assignments: Assignments = None,
    images: Annotated[int, typer.Option(min=1, help="Training images to measure on.")] = 256,
) -> None:
    """Say which layer bears which sparsity: a scan of every layer, written as a recipe.

    The rate is that of the recipe's budget.
    """
    from detprune.suggestion import suggest_plan  # torch warms up

    check_output_path(out, "--out")
    if os.path.lexists(out):
        raise InputError(f"{out} is there already; choose another --out")
    adapter, resolved = load_recipe(recipe, read_assignments(assignments or []))
    suggestion = suggest_plan(adapter, resolved, images)
    with atomic(out) as temporary:
        temporary.write_text(dump_yaml(suggestion.recipe), encoding="utf-8")
    Console(markup=False).print(suggestion.table())
    typer.echo(f"recipe: {out}")


@app.command("validate")
def validate_recipe(
    recipe: Annotated[Path, typer.Argument(help="A recipe.")], assignments: Assignments = None
) -> None:
    """Check a recipe without running it; prints it with every default spelled out."""
    _, resolved = load_recipe(recipe, read_assignments(assignments or []))
    typer.echo(dump_yaml(resolved), nl=False)


@app.command("list")
def list_components() -> None:
    """List methods, sets, adapters, models and data sets."""
    console = Console(markup=False)
    methods = {name: first_line(kind) for name, kind in METHODS.items()}
    console.print(listing("methods", methods))
    sets = {name: first_line(kind) for name, kind in SETS_BY_NAME.items()}
    console.print(listing("sets", sets))
    adapters: dict[str, Adapter] = {}
    lines = {}
    for name in sorted(adapter_entry_points()):
        try:
            adapters[name] = load_adapter(name)
            lines[name] = adapters[name].line
        except InputError as error:
            lines[name] = f"not usable: {error}"
    console.print(listing("adapters", lines))
    for name, adapter in adapters.items():
        for what, table in (("models", adapter.models()), ("data sets", adapter.data_sets())):
            if table:
                console.print(listing(f"{name}: {what}", table))


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(help="A finished run.")]) -> None:
    """Draw the report of a finished run again."""
    from detprune.report import write_report  # matplotlib only where a report is drawn

    typer.echo(str(write_report(run_dir)))


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A finished run.")],
    file_format: Annotated[str, typer.Option("--format", help="Format, such as onnx.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File; beside pruned.pt by default.")] = None,
) -> None:
    """Write the pruned network of a run in another format, and check it against the original."""
    recipe = run_dir / "recipe.yaml"
    if not (run_dir / "pruned.pt").is_file() or not recipe.is_file():
        raise InputError(
            f"{run_dir} holds no finished run (recipe.yaml and pruned.pt); give the directory that "
            "detprune run wrote, or finish it with --resume"
        )
    if out is not None:
        check_output_path(out, "--out", makes_folder=True)
    name = read_yaml(recipe).get("task")
    if not isinstance(name, str):
        raise InputError(f"{recipe}: task is missing; restore the recipe that the run began with")
    adapter = load_adapter(name)
    if adapter.export is None:
        raise InputError(f"{run_dir} is a run of the task {name!r}, which exports nothing")
    for line in adapter.export(run_dir, file_format, out):
        typer.echo(line)


app.command()(measure)


def _check_working_directory() -> None:
    """Refuse a working directory that is gone: frameworks ask for it long after paths were checked."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the working directory was deleted or replaced; change to a folder that is there (cd)"
        ) from error


def _add_adapter_commands() -> None:
    """Add the commands of ``evaluate`` or ``data``, only the one that is called if one is."""
    group, command = (*sys.argv[1:3], "", "")[:2]
    if group not in _GROUPS:
        return
    entries = sorted(entry_points(group=f"detprune.{group}"), key=lambda entry: entry.name)
    called = [entry for entry in entries if entry.name == command]
    for entry in called or entries:  # importing what all of them need takes seconds
        try:
            function = load_entry(entry)
        except InputError as error:
            if called:
                raise
            typer.echo(f"{group} {entry.name} is not available: {error}", err=True)
            continue
        _GROUPS[group].command(entry.name)(function)


def _complain(error: DetpruneError, code: int) -> None:
    LOGGER.debug("%s", error)
    typer.echo(f"error: {error}", err=True)
    sys.exit(code)
