"""Builds `report.html` from a run directory: one file, figures embedded, no scripts, no network."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.run.report import training, weights
from detprune.run.report.content import page_content
from detprune.run.report.maps import layer_maps
from detprune.run.report.pictures import read_pictures
from detprune.run.report.run_files import (
    DENSE_CHECKPOINT,
    FINAL_CHECKPOINT,
    METRICS,
    Run,
    read_run,
)
from detprune.run.report.style import drawing, save
from detprune.run.report.template import render

_CAPTIONS = {
    "training": (
        "Training curves",
        "Each column is one stage with its own epoch count; the lower row is the metric after each "
        "epoch, which in the constrained stage is that of weights not yet pruned.",
    ),
    "hard_pruning": (
        "Hard-pruning metric",
        "The closer the hard-pruned copy comes to the live weights, the less is lost when the "
        "weights to be pruned are set to zero, before any retraining.",
    ),
    "residual": (
        "Constraint residual, ρ and step size",
        "As ‖W − Z‖ falls, the weights W reach their sparse copies Z; below are the penalty "
        "coefficient, the multiplier step and, for SLR, at which outer iterations its two "
        "conditions for an update were met.",
    ),
    "histograms": (
        "Weights before and after",
        "Distribution of the weights of all pruned tensors, each panel with its own vertical "
        "scale: what the lower panel lacks was set to zero, with unstructured sparsity the "
        "smallest weights, hence a gap in the middle.",
    ),
    "heatmap": (
        "One layer before and after",
        "Each row is an output and each column an input weight of it; the deeper "
        "the colour, the larger the weight of that sign, and a pruned weight is pure white.",
    ),
    "maps": (
        "Layers before and after",
        "Mean magnitude of the weights over the cells of a grid on each layer's matrix of outputs × inputs; "
        "both panels of a layer have one scale, so that what is dark only below has lost its weights.",
    ),
    "layers": (
        "Kept weights by layer",
        "Share of each layer's weights that is not zero, and their number against all weights "
        "of the layer.",
    ),
}


@dataclass(frozen=True)
class _Shown:
    title: str
    caption: str
    image: str  # base64


def write_report(run_dir: Path) -> Path:
    """Write `report.html` and `figures/*.png` into a finished run's directory.

    Reads only the files of that directory. The page holds its figures, and the pictures that
    `pictures/pictures.json` lists, itself and can be passed on alone. What the run has no files for
    is left out and named on the page. Returns the page's path; raises `InputError` where the run
    is not finished or its files cannot be used.
    """
    run = read_run(Path(run_dir))
    folder = run.path / "figures"
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is no folder; delete it, or move it away, and report again")
    folder.mkdir(exist_ok=True)
    shown: list[_Shown] = []
    with drawing():
        figures, absent = _figures(run)
        remark = training.metric_remark(run)
        for slug, (title, caption) in _CAPTIONS.items():
            file = folder / f"{slug}.png"
            figure = figures.get(slug)
            if figure is None:
                # One from an earlier report would pass for a figure of this one.
                file.unlink(missing_ok=True)
                continue
            save(figure, file)
            if slug in ("training", "hard_pruning"):
                caption += remark
            shown.append(_Shown(title, caption, base64.b64encode(file.read_bytes()).decode()))
    pictures, missing = read_pictures(run.path)
    page = run.path / "report.html"
    content = render(
        "report.html.j2",
        **page_content(run),
        figures=shown,
        absent=absent,
        pictures=pictures,
        missing_pictures=missing,
    )
    with atomic(page) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return page


def _figures(run: Run) -> tuple[dict[str, Figure | None], list[tuple[str, str]]]:
    """Return the figures by name, and for each one left out its title and the reason."""
    reasons = {
        "training": "no epochs",
        "hard_pruning": "no hard-pruning checks",
        "residual": "no outer iterations",
    }
    where = f"in {METRICS}" if run.has_metrics else f"because there is no {METRICS}"
    reasons = {slug: f"{reason} {where}" for slug, reason in reasons.items()}
    reasons["layers"] = "no layers in summary.json"
    figures: dict[str, Figure | None] = {
        "training": training.training_curves(run),
        "hard_pruning": training.hard_pruning(run),
        "residual": training.residuals(run),
        "layers": weights.kept_weights(run),
    }
    before = weights.read_checkpoint(run, DENSE_CHECKPOINT)
    smaller = run.summary.removal is not None
    after = None if smaller else weights.read_checkpoint(run, FINAL_CHECKPOINT)
    if before and after:
        layer = weights.heatmap_layer(run)
        figures["histograms"] = weights.histograms(before, after)
        figures["maps"] = layer_maps(run, before, after)
        figures["heatmap"] = weights.heatmap(layer, before[layer.name], after[layer.name])
    pair = ((DENSE_CHECKPOINT, before), (FINAL_CHECKPOINT, after))
    missing = [name for name, state in pair if state is None]
    reason = f"no {' and no '.join(missing)}" if missing else "no pruned tensors"
    if smaller:
        reason = "channels were removed, so that the layers have other shapes"
    reasons["histograms"] = reasons["heatmap"] = reasons["maps"] = reason
    absent = [(_CAPTIONS[slug][0], reasons[slug]) for slug in _CAPTIONS if not figures.get(slug)]
    return figures, absent
