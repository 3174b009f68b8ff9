"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from detprune.files.folders import without_parents


def output_place(text: str | Path) -> Path:
    """The path of a file or folder to be written, without ``..``.

    Of ``new/../table.yaml`` the folder ``new`` would be made on the way, and a file that is there overlooked.
    """
    return without_parents(Path(text))


def file_place(text: str | Path) -> Path:
    """The path of a file to be written; one that ends in a slash is that of a folder, which ``Path`` would not tell."""
    if str(text).endswith(("/", "/.")):
        raise typer.BadParameter(
            f"{text} is a folder by the slash at its end, but a file is written; name the file too, for example "
            f"{Path(text) / 'name'}"
        )
    return output_place(text)


Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe: method.rho=0.1."),
]
Folder = Annotated[
    Path | None,
    typer.Option(help="Folder of all runs; runs/<name> by default, with the name in the file."),
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time; one per GPU by default.")]
