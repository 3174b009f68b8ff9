"""``detprune evaluate tusimple``: score a submission by TuSimple's metric."""

import json
from pathlib import Path
from typing import Annotated

import typer

from detprune_lanes.measure.submission import evaluate_files


def evaluate_tusimple(
    predictions: Annotated[
        Path,
        typer.Option(
            "--predictions", help="Submission: a JSON line of raw_file, lanes, run_time per frame."
        ),
    ],
    annotations: Annotated[
        Path, typer.Option("--annotations", help="Ground truth, such as test_label.json.")
    ],
) -> None:
    """TuSimple's accuracy, FP and FN of a submission, and F1, as JSON."""
    scores = evaluate_files(predictions, annotations)
    result = {
        "accuracy": scores.accuracy,
        "fp": scores.fp,
        "fn": scores.fn,
        "f1": scores.f1,
        "frames": len(scores.frames.accuracy),
    }
    typer.echo(json.dumps(result))
