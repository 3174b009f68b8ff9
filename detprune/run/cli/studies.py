"""``detprune study`` and ``detprune progressive``."""

from pathlib import Path
from typing import Annotated

import typer

from detprune.run.cli.options import Assignments, Folder, Jobs


def study(
    file: Annotated[
        Path, typer.Argument(help="A study file: a base recipe, and what varies in it.")
    ],
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
    """Run methods × rates × models × seeds with equal epochs; called again, it continues."""
    from detprune.run.cli.terminal import log_to_terminal, print_results
    from detprune.run.recipe import read_assignments
    from detprune.run.studies.study import run_study

    log_to_terminal()
    directory, complete = run_study(file, out, read_assignments(assignments or []), jobs, only)
    print_results(directory, complete)


def progressive(
    file: Annotated[Path, typer.Argument(help="A recipe, and the rates through which it goes.")],
    assignments: Assignments = None,
    out: Folder = None,
    jobs: Jobs = None,
) -> None:
    """Prune step by step, always from the best networks so far; called again, it continues."""
    from detprune.run.cli.terminal import log_to_terminal, print_results
    from detprune.run.recipe import read_assignments
    from detprune.run.studies.progressive import run_progressive

    log_to_terminal()
    directory, complete = run_progressive(file, out, read_assignments(assignments or []), jobs)
    print_results(directory, complete)
