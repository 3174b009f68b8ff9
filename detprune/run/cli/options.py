"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe: method.rho=0.1."),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of all runs; runs/<name> by default, with the name in the file."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time; one per GPU by default.")]
