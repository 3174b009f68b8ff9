"""``detprune data roads``: draw a lane detection set that needs no download."""

from pathlib import Path
from typing import Annotated

import typer

from detprune_lanes.data.roads.drawn import DrawnRoads, draw

_DEFAULT = DrawnRoads()


def draw_roads(
    out: Annotated[
        Path, typer.Argument(help="Folder to draw into: new, empty, or with the same set.")
    ],
    train: Annotated[int, typer.Option(help="Training frames.")] = _DEFAULT.train,
    test: Annotated[int, typer.Option(help="Test frames, in another style.")] = _DEFAULT.test,
    seed: Annotated[int, typer.Option(help="Another seed draws other frames.")] = _DEFAULT.seed,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="TuSimple label file, or folder of label files, whose lanes are drawn; "
            "by default lanes are random."
        ),
    ] = None,
) -> None:
    """Draw roads with labelled lanes in TuSimple's format, and print the folder."""
    typer.echo(draw(DrawnRoads(train, test, seed, labels), out))
