"""Figures of the weights before and after; all but the layer chart need the checkpoints."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from detprune.run.records import Layer
from detprune.run.report.run_files import Array, Run
from detprune.run.report.style import (
    BLUE,
    GREY,
    LIGHT,
    WIDTH,
    new_figure,
    plain,
    shorten,
    whole_numbers,
)

# An odd number of colours has one in the middle, pure white, in which only zeros are drawn.
_DIVERGING = LinearSegmentedColormap.from_list(
    "detprune_diverging", ["#08305F", "#3B82C4", "#FFFFFF", "#E07B39", "#7F2704"], N=257
)
# Every entry of the heatmap needs a pixel of its own, else zeros between weights disappear.
_HEATMAP_ENTRIES, _HEATMAP_ROWS, _HEATMAP_COLUMNS = 65_536, 512, 1_024
_NAMED_BARS = 45


def histograms(run: Run) -> Figure | None:
    """Draw the weights of all pruned tensors: all of them before, the nonzero ones after."""
    before, after = run.dense_weights, run.final_weights
    if not before or not after:
        return None
    dense = np.concatenate([tensor.ravel() for tensor in before.values()])
    final = np.concatenate([tensor.ravel() for tensor in after.values()])
    kept = final[final != 0]
    # A few outliers must not squeeze the other weights into a few bins; the legend tells how many are
    # beyond the axis.
    limit = max(reach(dense), reach(kept)) or 1.0
    bins = np.linspace(-limit, limit, 122)
    figure = new_figure(4.8)
    upper, lower = figure.subplots(2, sharex=True)
    zeros = 1 - kept.size / max(final.size, 1)
    upper.set_title("before: dense model", loc="left")
    _histogram(upper, dense, bins, GREY, f"{dense.size:,} weights")
    lower.set_title("after: final model, nonzero weights only", loc="left")
    label = f"{kept.size:,} nonzero weights;\n{100 * zeros:.2f} % are zero, not drawn"
    _histogram(lower, kept, bins, BLUE, label)
    lower.set_xlabel("weight")
    lower.set_xlim(-limit, limit)
    figure.align_ylabels([upper, lower])
    return figure


def reach(values: Array, share: float = 0.9995) -> float:
    """Return the magnitude that no more than `1 - share` of the finite values exceed."""
    finite = np.abs(values[np.isfinite(values)])
    return float(np.quantile(finite, share)) if finite.size else 0.0


def _histogram(
    axes: Axes, values: Array, bins: npt.NDArray[np.float64], colour: str, label: str
) -> None:
    counts, _ = np.histogram(values, bins)
    beyond = values.size - int(counts.sum())
    if beyond:
        label += f"\n{beyond:,} beyond the axis"
    axes.stairs(counts, bins, fill=True, color=colour, label=label)
    axes.set_ylabel("weights per bin")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.legend(loc="upper right", frameon=True, edgecolor="#D1D5DB")


def heatmap_layer(run: Run) -> Layer:
    """Choose the layer for the heatmap: the largest that fits, else the smallest, to be cropped."""
    layers = [layer for layer in run.pruned if layer.nonzero < layer.numel] or run.pruned
    layers = [layer for layer in layers if len(layer.shape) > 1] or layers
    fitting = [layer for layer in layers if _fits(layer)]
    if fitting:
        return max(fitting, key=lambda layer: layer.numel)
    return min(layers, key=lambda layer: layer.numel)


def _matrix_shape(layer: Layer) -> tuple[int, int]:
    rows = layer.shape[0] if len(layer.shape) > 1 else 1
    return rows, layer.numel // max(rows, 1)


def _fits(layer: Layer) -> bool:
    rows, columns = _matrix_shape(layer)
    return layer.numel <= _HEATMAP_ENTRIES and rows <= _HEATMAP_ROWS and columns <= _HEATMAP_COLUMNS


def heatmap(run: Run) -> Figure | None:
    """Draw one layer's weights as a matrix, out × in·kh·kw, before and after."""
    if not run.dense_weights or not run.final_weights:
        return None
    layer = heatmap_layer(run)
    shape = _matrix_shape(layer)
    dense, final = (w[layer.name].reshape(shape) for w in (run.dense_weights, run.final_weights))
    part = ""
    if not _fits(layer):
        dense, final = dense[:256, :256], final[:256, :256]
        part = f", first {dense.shape[0]} × {dense.shape[1]} of {shape[0]} × {shape[1]}"
    rows, columns = dense.shape
    stacked = columns >= 2 * rows
    panel = 6.9 if stacked else 3.4
    height = min(max(panel * rows / columns, 0.7), 5.0)
    figure = new_figure((2 * height + 1.7) if stacked else (height + 1.3), WIDTH)
    top, bottom = figure.subplots(*((2, 1) if stacked else (1, 2)), sharex=True, sharey=True)
    limit = max(_contrast(dense), _contrast(final)) or 1.0
    norm = Normalize(-limit, limit)
    image = top.imshow(dense, _DIVERGING, norm, aspect="auto", interpolation="nearest")
    bottom.imshow(final, _DIVERGING, norm, aspect="auto", interpolation="nearest")
    top.set_title("before: dense model", loc="left")
    bottom.set_title(f"after: {100 * float(np.mean(final == 0)):.1f} % zero", loc="left")
    name = plain(shorten(layer.name, 48))
    figure.suptitle(f"{name} ({' × '.join(map(str, layer.shape))}){part}", fontsize=10.5)
    for axes in (top, bottom):
        axes.grid(visible=False)
        axes.spines[:].set_visible(True)
        whole_numbers(axes.xaxis)
        whole_numbers(axes.yaxis)
    for axes in (bottom,) if stacked else (top, bottom):
        axes.set_xlabel("input channel and kernel position" if len(layer.shape) > 2 else "input")
    for axes in (top, bottom) if stacked else (top,):
        axes.set_ylabel("output")
    figure.colorbar(image, ax=[top, bottom], label="weight", extend="both", pad=0.015)
    return figure


def _contrast(values: Array) -> float:
    """Return the magnitude at which the colours end; the few larger weights have the last colour."""
    nonzero = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.quantile(nonzero, 0.99)) if nonzero.size else 0.0


def kept_weights(run: Run) -> Figure | None:
    """Draw the share and the number of weights kept in each layer."""
    layers = run.summary.layers
    if not layers:
        return None
    if len(layers) > _NAMED_BARS:
        return _kept_columns(layers)
    return _kept_bars(layers)


def _share_limit(layers: tuple[Layer, ...]) -> float:
    """Return the end of the axis for the pruned layers; an axis for one dense layer would hide all of them."""
    largest = max((layer.kept for layer in layers if layer.pruned), default=1.0)
    return 100 * min(1.0, 1.3 * largest) or 1.0


def _kept_bars(layers: tuple[Layer, ...]) -> Figure:
    figure = new_figure(1.1 + 0.26 * len(layers))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.0])
    rows = range(len(layers))
    limit = _share_limit(layers)
    shares = [100 * layer.kept if layer.pruned else 0.0 for layer in layers]
    left.barh(rows, shares, color=BLUE, height=0.7)
    for row, layer in enumerate(layers):
        text = f" {100 * layer.kept:.1f} %" if layer.pruned else " left dense"
        left.text(shares[row], row, text, va="center", fontsize=8, color="#374151")
    left.set_xlim(0, limit * 1.12)
    left.set_xticks([tick for tick in left.get_xticks() if 0 <= tick <= 100])
    left.set_xlabel("share of the layer's weights kept (%)")
    _counts(right, layers, horizontal=True)
    left.set_yticks(rows, [plain(shorten(layer.name, 30)) for layer in layers])
    left.set_ylim(len(layers) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(visible=False, axis="y")
    return figure


def _kept_columns(layers: tuple[Layer, ...]) -> Figure:
    """Draw the chart for deep networks: layers by their number in the table, without names."""
    figure = new_figure(5.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    numbers = np.arange(1, len(layers) + 1)
    limit = _share_limit(layers)
    for dense, colour, label in ((False, BLUE, "pruned"), (True, LIGHT, "left dense (100 %)")):
        chosen = [not layer.pruned for layer in layers] if dense else [y.pruned for y in layers]
        heights = [limit if dense else 100 * layer.kept for layer in layers]
        if any(chosen):
            upper.bar(numbers[chosen], np.array(heights)[chosen], 0.85, color=colour, label=label)
    upper.set_ylim(0, limit)
    upper.set_ylabel("kept (%)")
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    _counts(lower, layers, horizontal=False)
    lower.set_xlabel("layer, by its number in the table")
    lower.set_xlim(0.2, len(layers) + 0.8)
    for axes in (upper, lower):
        axes.grid(visible=False, axis="x")
    figure.align_ylabels([upper, lower])
    return figure


def _counts(axes: Axes, layers: tuple[Layer, ...], horizontal: bool) -> None:
    total = [layer.numel for layer in layers]
    kept = [layer.nonzero for layer in layers]
    number = FuncFormatter(lambda value, _: f"{value:,.0f}")
    if horizontal:
        rows = range(len(layers))
        axes.barh(rows, total, color=LIGHT, height=0.7, label="all weights")
        axes.barh(rows, kept, color=BLUE, height=0.7, label="kept")
        axes.set_xlabel("number of weights")
        axes.xaxis.set_major_formatter(number)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        numbers = range(1, len(layers) + 1)
        axes.bar(numbers, total, 0.85, color=LIGHT, label="all weights")
        axes.bar(numbers, kept, 0.85, color=BLUE, label="kept")
        axes.set_ylabel("weights")
        axes.yaxis.set_major_formatter(number)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
