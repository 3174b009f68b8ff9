"""Figures of a study: the metric against the rate, the course of training, and the remaining weights."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from detprune.run.records import Stage
from detprune.run.report import style
from detprune.run.report.run_files import Array, Run, read_run
from detprune.run.report.tables import Picture
from detprune.run.report.weights import reach
from detprune.run.studies.study.results import STAGES, Results

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#999933")
_MARKERS = "os^Dv"
_PANELS: dict[Stage, str] = {
    "hard_pruned": STAGES["hard_pruned"],
    "final": "after masked retraining",
}


def draw_study(results: Results, folder: Path) -> list[Picture]:
    """Draw ``figures/*.png`` into a study's folder; return them with their titles, model by model.

    The metric against the rate is of all runs. Convergence and weights are of one rate and one seed: those
    with most finished runs, of several the highest rate.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    pictures = []

    def add(figure: Figure, name: str, title: str) -> None:
        style.save(figure, figures / name)
        pictures.append(Picture(title, figures / name))

    several = "; bars are one standard deviation over the seeds"
    with style.drawing():
        for model in results.study.labels:
            name = model or (results.example.model if results.example else results.study.name)
            prefix = f"{model}_" if model else ""
            bars = several if len(results.study.seeds) > 1 else ""
            add(
                _rates(results, model), f"{prefix}rates.png", f"{name}: {results.metric.name}{bars}"
            )
            rate, seed, runs = _shown(results, model, folder)
            where = f"{name} at {results.study.label_of(rate)}, seed {seed}"
            if any(len(metric_track(run)) > 2 or _residual(run) for run in runs.values()):
                title = f"{where}: hard-pruned copies during constrained training, then masked retraining"
                add(_convergence(results, runs), f"{prefix}convergence.png", title)
            if (figure := _weights(runs)) is not None:
                title = f"{where}: weights of the dense network (grey) and those that are left"
                add(figure, f"{prefix}weights.png", title)
    return pictures


def _look(index: int) -> dict[str, Any]:
    """Colour and marker of a method; the first 35 combinations are different."""
    count = len(_COLOURS)
    return {"color": _COLOURS[index % count], "marker": _MARKERS[index // count % len(_MARKERS)]}


# ---------------------------------------------------------------- the metric against the rate


def _rates(results: Results, model: str) -> Figure:
    """The metric before and after masked retraining; methods one below the other if there is one rate."""
    rates = results.study.sorted_rates(model)
    one = len(rates) == 1
    figure = style.new_figure(1.5 + 0.28 * len(results.study.methods) if one else 3.6)
    panels = figure.subplots(1, 2, sharey=True, sharex=one)
    dense = results.baseline(model)
    for axes, (stage, title) in zip(panels, _PANELS.items(), strict=True):
        axes.set_title(title)
        if dense:
            line = axes.axvline if one else axes.axhline
            line(statistics.mean(dense), color=style.GREY, linestyle=":", label="dense")
        if one:
            _dots(axes, results, model, rates[0], stage)
        else:
            _curves(axes, results, model, rates, stage)
    label = style.metric_label(results.metric)
    if one:
        panels[0].set_yticks(range(len(results.study.methods)), list(results.study.methods))
        panels[0].invert_yaxis()
        figure.supxlabel(
            f"{label} at {results.study.label_of(rates[0])}; dotted: dense" if dense else label,
            fontsize=10,
        )
    else:
        panels[0].set_ylabel(label)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _dots(axes: Axes, results: Results, model: str, rate: float, stage: Stage) -> None:
    for index, method in enumerate(results.study.methods):
        if values := results.values(model, method, rate, stage):
            error = statistics.stdev(values) if len(values) > 1 else math.nan
            axes.errorbar(statistics.mean(values), index, xerr=error, capsize=2, **_look(index))


def _curves(axes: Axes, results: Results, model: str, rates: list[float], stage: Stage) -> None:
    for index, method in enumerate(results.study.methods):
        found = [(r, results.values(model, method, r, stage)) for r in rates]
        shown = [(r, values) for r, values in found if values]
        axes.errorbar(
            [r for r, _ in shown],
            [statistics.mean(values) for _, values in shown],
            yerr=[statistics.stdev(v) if len(v) > 1 else math.nan for _, v in shown],
            capsize=2,
            label=method,
            **_look(index),
        )
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{r:g}" for r in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params("x", labelrotation=45 if len(rates) > 5 else 0)
    compression = results.study.target == "compression"
    axes.set_xlabel("compression rate" if compression else f"share of {results.study.target} left")
    if not compression:
        axes.invert_xaxis()


# ---------------------------------------------------------------- one rate, one seed


def _shown(results: Results, model: str, folder: Path) -> tuple[float, int, dict[str, Run]]:
    """The rate and the seed with most finished runs, and those runs by method."""
    groups: dict[tuple[float, int], dict[str, Path]] = {
        (rate, seed): {} for rate in results.study.rates_of(model) for seed in results.study.seeds
    }
    for cell, summary in results.cells.items():
        if cell.baseline.model == model and summary is not None:
            groups[cell.rate, cell.baseline.seed][cell.method] = folder / cell.folder
    rate, seed = max(groups, key=lambda group: (len(groups[group]), group[0], -group[1]))
    return rate, seed, {method: read_run(path) for method, path in groups[rate, seed].items()}


def _convergence(results: Results, runs: Mapping[str, Run]) -> Figure:
    """‖W − Z‖ / ‖W‖ during constrained training, and the metric of hard-pruned copies and pruned networks."""
    order = list(results.study.methods)
    figure = style.new_figure(3.9)
    left, right = figure.subplots(1, 2)
    ends = {run.summary.epochs.get("constrained") or 0 for run in runs.values()}
    residuals = []
    for method, run in runs.items():
        look = {**_look(order.index(method)), "ms": 4, "lw": 1.4}
        residual = _residual(run)
        residuals.append(style.floats(value for _, value in residual))
        left.plot([epoch for epoch, _ in residual], residuals[-1], label=method, **look)
        track = metric_track(run)
        values = style.floats((value for _, value in track), results.metric.scale)
        right.plot([epoch for epoch, _ in track], values, label=method, **look)
    style.log_if_wide(left, *residuals)
    left.set_ylabel("relative residual ‖W − Z‖ / ‖W‖")
    left.set_xlabel("epoch of constrained training")
    if not any(residuals):
        left.set_visible(False)
    for end in ends:
        right.axvline(end, color=style.GREY, lw=1, ls="--", label="hard pruning")
    right.set_ylabel(style.metric_label(results.metric))
    right.set_xlabel("epoch, constrained and then of retraining")
    style.whole_numbers(right.xaxis)
    handles, labels = right.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside lower center", ncols=4)
    return figure


def _residual(run: Run) -> list[tuple[float, float]]:
    """(epoch, ‖W − Z‖ / ‖W‖) after every outer iteration of a method that has a Z."""
    each = (run.summary.epochs.get("constrained") or 0) / max(len(run.outer), 1)
    found = ((each * outer.k, outer.relative_residual) for outer in run.outer)
    return [(epoch, value) for epoch, value in found if value is not None]


def metric_track(run: Run) -> list[tuple[float, float | None]]:
    """(epoch, the headline metric) of hard-pruned copies, of the hard-pruned network, of retraining."""
    summary = run.summary
    pruned_at = summary.epochs.get("constrained") or 0
    end = pruned_at + (summary.epochs.get("retrain") or 0)
    found: dict[float, float | None] = {check.epoch: check.metric for check in run.checks}
    found[pruned_at] = summary.hard_pruned
    for epoch in run.epochs.get("retrain", []):
        if epoch.metric is not None and epoch.metric_name in (None, summary.metric):
            found[pruned_at + epoch.epoch] = epoch.metric
    found[end] = summary.final
    return sorted(found.items(), key=lambda point: point[0])


def _weights(runs: Mapping[str, Run]) -> Figure | None:
    """Nonzero weights of every final network over those of its dense one; None without checkpoints."""
    found: dict[str, tuple[Array, Array]] = {}
    for method, run in runs.items():
        before, after = run.dense_weights, run.final_weights
        if before and after:
            kept = np.concatenate([tensor[tensor != 0] for tensor in after.values()])
            found[method] = np.concatenate([w.ravel() for w in before.values()]), kept
    if not found:
        return None
    limit = max(reach(w, 0.995) for pair in found.values() for w in pair) or 1.0
    bins = np.linspace(-limit, limit, 102)
    columns = min(len(found), 2)
    rows = math.ceil(len(found) / columns)
    figure = style.new_figure(0.6 + 1.5 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for axes, (method, (dense, kept)) in zip(grid.flat, found.items(), strict=False):
        for values, colour in ((dense, style.LIGHT), (kept, style.BLUE)):
            share = 100 * np.histogram(values, bins)[0] / max(values.size, 1)
            axes.stairs(share, bins, fill=colour == style.LIGHT, color=colour, lw=1.2)
        axes.set_title(f"{style.plain(method)}: {kept.size:,} weights left", loc="left", fontsize=9)
    figure.supxlabel("weight", fontsize=10)
    figure.supylabel("% of the weights per bin", fontsize=10)
    return figure
