"""The style of all figures: size, colours, type, scales. It uses matplotlib's object API, no pyplot."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from detprune.files.atomic import atomic
from detprune.run.metrics import Metric
from detprune.run.printable import printable

# Okabe and Ito's palette: distinguishable with every common form of colour blindness.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#007A5A"
GREY = "#6B7280"
LIGHT = "#D5DBE3"

WIDTH = 8.0  # inches
DPI = 160


def drawing() -> AbstractContextManager[None]:
    """Return a context with the settings of all figures; they are undone when it ends."""
    return matplotlib.rc_context(
        {
            "text.usetex": False,
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 10,
            "axes.titlesize": 10.5,
            "axes.labelsize": 10,
            "axes.edgecolor": "#9AA3AF",
            "axes.labelpad": 6,
            "axes.labelcolor": "#1F2937",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E7EB",
            "grid.linewidth": 0.8,
            "xtick.color": "#4B5563",
            "ytick.color": "#4B5563",
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
        }
    )


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure on the Agg canvas."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is, dollar signs included, and control characters as escapes."""
    return printable(text).replace("$", r"\$")


def shorten(name: str, length: int) -> str:
    """Cut a long name in its middle, where module paths differ least."""
    if len(name) <= length:
        return name
    tail = (length - 1) * 2 // 3
    return f"{name[: length - 1 - tail]}…{name[-tail:]}"


def metric_label(metric: Metric) -> str:
    """Return the axis label of a metric."""
    return plain(metric.label)


def floats(values: Iterable[float | None], scale: float = 1.0) -> list[float]:
    """Return the values for plotting; missing and infinite values become gaps."""
    return [
        scale * value if value is not None and math.isfinite(value) else math.nan
        for value in values
    ]


def has_values(values: Sequence[float]) -> bool:
    """Return whether any value can be drawn."""
    return any(not math.isnan(value) for value in values)


def marker(count: int) -> str:
    """Return the marker for a curve of `count` points: none if markers would run together."""
    return "o" if count <= 40 else ""


def legend_above(axes: Axes) -> None:
    """Put the legend above the axes, where no curve can run through it."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def whole_numbers(axis: Axis) -> None:
    """Put ticks on whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins="auto"))


def log_if_wide(axes: Axes, *curves: Sequence[float], factor: float = 20.0) -> None:
    """Make the y axis logarithmic if the values span more than `factor`."""
    shown = [value for curve in curves for value in curve if not math.isnan(value)]
    values = [value for value in shown if value > 0]
    if not values or min(shown) < 0 or max(values) <= factor * min(values):
        if min(shown, default=0.0) >= 0:
            axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log", nonpositive="mask")
    decades = math.log10(max(values) / min(values))
    subs = (1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
