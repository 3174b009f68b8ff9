"""Maps of where several layers have their weights, before and after; layers of any size fit on small maps."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from detprune.run.records import Layer
from detprune.run.report.run_files import Array, Run
from detprune.run.report.style import new_figure, plain, shorten

_LAYERS = 6
_SIDE = 64  # cells of a map at most, in either direction


def layer_maps(run: Run) -> Figure | None:
    """Draw mean magnitudes of up to six layers that have lost weights, dense above and final below."""
    before, after = run.dense_weights, run.final_weights
    if not before or not after:
        return None
    layers = spread([y for y in run.pruned if y.nonzero < y.numel] or run.pruned, _LAYERS)
    figure = new_figure(4.2)
    panels = figure.subplots(2, len(layers), squeeze=False)
    for column, layer in enumerate(layers):
        dense, final = (pooled(weights[layer.name]) for weights in (before, after))
        scale = Normalize(0, float(np.quantile(dense, 0.99)) or 1.0)
        for axes, values in zip(panels[:, column], (dense, final), strict=True):
            axes.imshow(values, "magma", scale, aspect="auto", interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
        shape = "×".join(map(str, layer.shape))
        panels[0, column].set_title(f"{plain(shorten(layer.name, 20))}\n{shape}", fontsize=7.5)
        zeros = 100 * (1 - layer.nonzero / layer.numel)
        panels[1, column].set_xlabel(f"{zeros:.1f} % zero", fontsize=8)
    panels[0, 0].set_ylabel("dense")
    panels[1, 0].set_ylabel("final")
    return figure


def spread(layers: Sequence[Layer], most: int) -> list[Layer]:
    """The first layer, the last layer, and layers spread evenly between them."""
    if len(layers) <= most:
        return list(layers)
    return [layers[round(i * (len(layers) - 1) / (most - 1))] for i in range(most)]


def pooled(weight: Array) -> Array:
    """Mean of |W| over the cells of a grid on the matrix out × in·kh·kw, at most 64 × 64 of them."""
    matrix = np.abs(weight.reshape(weight.shape[0] if weight.ndim > 1 else 1, -1))
    for axis in (0, 1):
        length = matrix.shape[axis]
        starts = np.unique(np.arange(_SIDE) * length // _SIDE)
        counts = np.diff(np.append(starts, length))
        sums = np.add.reduceat(matrix, starts, axis=axis)
        matrix = sums / (counts[:, None] if axis == 0 else counts[None, :])
    result: Array = matrix.astype(np.float32)
    return result
