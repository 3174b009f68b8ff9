# SPDX-License-Identifier: AGPL-3.0-or-later
"""``detprune data shapes``: draw a small data set that needs no download."""

from pathlib import Path
from typing import Annotated, Any

import typer

from detprune_yolo.data.drawing import DrawnSet, draw

_DEFAULT = DrawnSet()


def draw_shapes(
    out: Annotated[
        Path, typer.Argument(help="Folder to draw into: new, empty, or with the same set.")
    ],
    train: Annotated[int, typer.Option(help="Training images.")] = _DEFAULT.train,
    val: Annotated[int, typer.Option(help="Validation images.")] = _DEFAULT.val,
    test: Annotated[int, typer.Option(help="Test images.")] = _DEFAULT.test,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = _DEFAULT.size,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = _DEFAULT.seed,
    classes: Annotated[int, typer.Option(help="Number of classes (shapes).")] = _DEFAULT.classes,
    objects: Annotated[int, typer.Option(help="Most objects in an image.")] = _DEFAULT.objects,
    smallest: Annotated[
        float, typer.Option(help="Side of the smallest shape, as a share of the image's side.")
    ] = _DEFAULT.smallest,
    task: Annotated[
        str, typer.Option(help="Task of the labels: detect, segment, pose, obb or classify.")
    ] = "detect",
) -> None:
    """Draw six shapes on textured backgrounds with the labels of a task, and print the data yaml (or folder)."""
    kind: Any = task  # it is checked with the other values
    spec = DrawnSet(train, val, size, seed, test, classes, objects, smallest, kind)
    typer.echo(draw(spec, out))
