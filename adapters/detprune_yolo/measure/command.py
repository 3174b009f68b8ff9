# SPDX-License-Identifier: AGPL-3.0-or-later
"""``detprune evaluate coco``: score a file of predictions with pycocotools."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from detprune.errors import InputError
from detprune.files import load_yaml
from detprune_yolo.measure.coco import evaluate_file


def evaluate_coco(
    predictions: Annotated[
        Path,
        typer.Option("--predictions", help="COCO results, or Ultralytics' predictions.json."),
    ],
    annotations: Annotated[
        Path, typer.Option("--annotations", help="COCO instances file with the ground truth.")
    ],
    names: Annotated[
        Path | None,
        typer.Option(
            "--names",
            help="Data set's YAML file; needed if the predictions number its classes 1, 2, … and "
            "the annotations do not.",
        ),
    ] = None,
) -> None:
    """Average precision of a file of predictions by pycocotools, as JSON."""
    scores = evaluate_file(predictions, annotations, None if names is None else _names(names))
    result = {
        "mAP@0.5": scores.map50,
        "mAP@[.5:.95]": scores.map50_95,
        "mAP@[.5:.95] small": scores.small,
        "mAP@[.5:.95] medium": scores.medium,
        "mAP@[.5:.95] large": scores.large,
        "images": scores.images,
        "annotations": scores.annotations,
        "predictions": scores.predictions,
    }
    typer.echo(json.dumps(result))


def _names(file: Path) -> dict[int, str]:
    content = load_yaml(file, strict=False)
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping):
        listed = dict(names)
    elif isinstance(names, list):
        listed = dict(enumerate(names))
    else:
        raise InputError(
            f"{file} has no names; give the class names in the order of the model's classes, as in "
            "names: [person, car]"
        )
    if set(listed) != set(range(len(listed))):
        raise InputError(
            f"{file}: names has the keys {list(listed)}; they are 0, 1, … for all classes"
        )
    return {index: str(name) for index, name in listed.items()}
