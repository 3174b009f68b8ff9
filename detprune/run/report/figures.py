"""The figures of a report, in the order of the page; a new figure is one more record in the list."""

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from detprune.run.events import FILE
from detprune.run.report import training, weights
from detprune.run.report.maps import layer_maps
from detprune.run.report.run_files import DENSE_CHECKPOINT, FINAL_CHECKPOINT, Run


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the report, shown if the run has the data for it.

    Attributes:
        slug: name of the file, without ``.png``.
        title: title above the figure.
        caption: description of the figure, and its meaning.
        draw: run → the figure; None if the run lacks its data.
        lacking: run → text on the missing data, for the list of figures that are left out.
        remark: run → text after the caption.
    """

    slug: str
    title: str
    caption: str
    draw: Callable[[Run], Figure | None]
    lacking: Callable[[Run], str]
    remark: Callable[[Run], str] = lambda run: ""


def _no_events(what: str) -> Callable[[Run], str]:
    return lambda run: (
        f"no {what} in {FILE}" if run.has_metrics else f"no {what} because there is no {FILE}"
    )


def _no_weights(run: Run) -> str:
    if run.summary.removal is not None:
        return "channels were removed, so that the layers have other shapes"
    pair = ((DENSE_CHECKPOINT, run.dense_weights), (FINAL_CHECKPOINT, run.final_weights))
    missing = [name for name, found in pair if found is None]
    return f"no {' and no '.join(missing)}" if missing else "no pruned tensors"


FIGURES = (
    ReportFigure(
        "training",
        "Training curves",
        "Each column is one stage with its own epoch count; the lower row is the metric after each "
        "epoch, which in the constrained stage is that of weights not yet pruned.",
        training.training_curves,
        _no_events("epochs"),
        training.metric_remark,
    ),
    ReportFigure(
        "hard_pruning",
        "Hard-pruning metric",
        "The closer the hard-pruned copy comes to the live weights, the less is lost when the "
        "weights to be pruned are set to zero, before any retraining.",
        training.hard_pruning,
        _no_events("hard-pruning checks"),
        training.metric_remark,
    ),
    ReportFigure(
        "residual",
        "Constraint residual, ρ and step size",
        "As ‖W − Z‖ falls, the weights W reach their sparse copies Z; below are the penalty "
        "coefficient, the multiplier step and, for SLR, at which outer iterations its two "
        "conditions for an update were met.",
        training.residuals,
        _no_events("outer iterations"),
    ),
    ReportFigure(
        "histograms",
        "Weights before and after",
        "Distribution of the weights of all pruned tensors, each panel with its own vertical "
        "scale: what the lower panel lacks was set to zero, with unstructured sparsity the "
        "smallest weights, hence a gap in the middle.",
        weights.histograms,
        _no_weights,
    ),
    ReportFigure(
        "heatmap",
        "One layer before and after",
        "Each row is an output and each column an input weight of it; the deeper "
        "the colour, the larger the weight of that sign, and a pruned weight is pure white.",
        weights.heatmap,
        _no_weights,
    ),
    ReportFigure(
        "maps",
        "Layers before and after",
        "Mean magnitude of the weights over the cells of a grid on each layer's matrix of outputs × inputs; "
        "both panels of a layer have one scale, so that what is dark only below has lost its weights.",
        layer_maps,
        _no_weights,
    ),
    ReportFigure(
        "layers",
        "Kept weights by layer",
        "Share of each layer's weights that is not zero, and their number against all weights "
        "of the layer.",
        weights.kept_weights,
        lambda run: "no layers in summary.json",
    ),
)
