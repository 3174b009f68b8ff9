"""Figures of the training, from `metrics.jsonl` and the headline numbers."""

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detprune.run.events import Outer
from detprune.run.metrics import Metric
from detprune.run.report.run_files import Run
from detprune.run.report.style import (
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    WIDTH,
    floats,
    has_values,
    legend_above,
    log_if_wide,
    marker,
    metric_label,
    new_figure,
    plain,
    whole_numbers,
)

STAGES = {
    "dense": "dense training",
    "constrained": "constrained training",
    "retrain": "masked retraining",
}
_STAGE_COLOURS = {"dense": GREY, "constrained": BLUE, "retrain": GREEN}


def epoch_metric(run: Run) -> Metric:
    """Return the metric that was measured after every epoch; it is often cheaper than the headline metric."""
    epochs = [epoch for stage in run.epochs.values() for epoch in stage]
    names = [e.metric_name or run.summary.metric for e in epochs if e.metric is not None]
    return run.summary.unit(" or ".join(dict.fromkeys(names)) or run.summary.metric)


def metric_remark(run: Run) -> str:
    """Return a remark for captions if the metric of the epochs is not the headline metric; else an empty text."""
    live, headline = epoch_metric(run).name, run.summary.metric
    if live == headline:
        return ""
    if not _same_unit(run):
        return f" The epochs were measured in {live}, which has no common axis with {headline}."
    return (
        f" The epochs were measured in {live}, everything else in {headline}: part of the distance "
        "between them comes from the two ways to measure."
    )


def _same_unit(run: Run) -> bool:
    return epoch_metric(run).per_cent == run.summary.headline.per_cent


def training_curves(run: Run) -> Figure | None:
    """Draw loss and metric over the epochs, one column for each stage."""
    stages = [stage for stage in STAGES if stage in run.epochs]
    stages += [stage for stage in run.epochs if stage not in STAGES]
    if not stages:
        return None
    live, same_unit = epoch_metric(run), _same_unit(run)
    scale = live.scale
    headline = "" if live.name == run.summary.metric else f": {plain(run.summary.metric)}"
    # Columns as wide as their stages are long, but wide enough for their titles.
    lengths = [len(run.epochs[stage]) for stage in stages]
    ratios = [max(length / sum(lengths), 0.24) for length in lengths]
    figure = new_figure(5.0)
    grid = figure.subplots(
        2, len(stages), sharex="col", sharey="row", squeeze=False, width_ratios=ratios
    )
    losses: list[list[float]] = []
    dense = floats([run.summary.dense], scale)
    for column, stage in enumerate(stages):
        epochs = run.epochs[stage]
        x = [epoch.epoch for epoch in epochs]
        loss = floats(epoch.train_loss for epoch in epochs)
        metric = floats((epoch.metric for epoch in epochs), scale)
        losses.append(loss)
        upper, lower = grid[0, column], grid[1, column]
        style = {"color": _STAGE_COLOURS.get(stage, GREY), "marker": marker(len(x)), "ms": 3.5}
        style["lw"] = 1.8 if len(x) <= 100 else 1.2
        upper.plot(x, loss, **style)
        lower.plot(x, metric, **style)
        upper.set_title(plain(STAGES.get(stage, stage)))
        lower.set_xlabel("epoch")
        whole_numbers(lower.xaxis)
        if stage != "dense" and has_values(dense) and same_unit:
            label = f"dense model{headline}"
            lower.axhline(dense[0], color=GREY, ls="--", lw=1.2, zorder=1, label=label)
        if stage == "retrain" and run.summary.hard_pruned is not None and same_unit:
            hard = floats([run.summary.hard_pruned], scale)
            lower.plot([0], hard, "D", color=ORANGE, ms=6, label=f"hard-pruned{headline}", ls="")
    handles, labels = grid[1, -1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    log_if_wide(grid[0, 0], *losses)
    grid[0, 0].set_ylabel("training loss")
    grid[1, 0].set_ylabel(textwrap.fill(metric_label(live), 26))  # lines as long as the axis
    figure.align_ylabels(list(grid[:, 0]))
    return figure


def hard_pruning(run: Run) -> Figure | None:
    """Draw the metric of hard-pruned copies beside that of the live weights."""
    if not run.checks:
        return None
    summary = run.summary
    scale = summary.headline.scale
    name = epoch_metric(run).name
    two = name != summary.metric
    headline = f": {plain(summary.metric)}" if two else ""
    figure = new_figure(4.1 if two else 3.8)
    axes = figure.subplots()
    live = run.epochs.get("constrained", [])
    if _same_unit(run):
        axes.plot(
            [epoch.epoch for epoch in live],
            floats((epoch.metric for epoch in live), scale),
            color=BLUE,
            marker=marker(len(live)),
            ms=4,
            label=f"not pruned: {plain(name)}" if two else "live weights, not pruned",
        )
    axes.plot(
        [check.epoch for check in run.checks],
        floats((check.metric for check in run.checks), scale),
        color=ORANGE,
        marker="s" if len(run.checks) <= 40 else "",
        ms=4.5,
        label=f"hard-pruned copy{headline}",
    )
    if summary.dense is not None:
        reference = floats([summary.dense], scale)[0]
        label = f"dense model{headline}"
        axes.axhline(reference, color=GREY, ls="--", lw=1.2, zorder=1, label=label)
    if summary.final is not None:
        label = "final, after retraining" if run.epochs.get("retrain") else "final"
        reference = floats([summary.final], scale)[0]
        label += headline
        axes.axhline(reference, color=GREEN, ls=":", lw=1.6, zorder=1, label=label)
    axes.set_xlabel("epoch of the constrained training")
    # Two metrics may share the axis; then only the legend says which is which.
    per_cent = "metric (%)" if summary.headline.per_cent else "metric"
    axes.set_ylabel(per_cent if two and _same_unit(run) else metric_label(summary.headline))
    whole_numbers(axes.xaxis)
    # The legend is below the axes, because curves may run anywhere inside them.
    figure.legend(loc="outside lower center", ncols=2 if two else 4)
    return figure


def residuals(run: Run) -> Figure | None:
    """Draw the constraint residual, ρ, the step size and the SLR conditions over k."""
    outer = run.outer
    if not outer:
        return None
    k = [step.k for step in outer]
    conditions = any(s.condition_3 is not None or s.condition_8 is not None for s in outer)
    heights = [2.0, 2.0, 1.8] + ([0.85] if conditions else [])
    figure = new_figure(sum(heights) + 0.6, WIDTH)
    panels: Sequence[Axes] = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    relative = floats(step.relative_residual for step in outer)
    absolute = floats(step.residual_norm for step in outer)
    change = floats(step.target_change for step in outer)
    rho = floats(step.rho for step in outer)
    step_size = floats(step.step_size for step in outer)

    _curve(panels[0], k, relative, BLUE, "o", "relative residual ‖W − Z‖ / ‖W‖")
    log_if_wide(panels[0], relative)
    panels[0].set_ylabel("‖W − Z‖ / ‖W‖")
    _curve(panels[1], k, absolute, BLUE, "o", "residual ‖W − Z‖")
    _curve(panels[1], k, change, ORANGE, "^", "change of the target ‖Zᵏ − Zᵏ⁻¹‖", ls="--")
    log_if_wide(panels[1], absolute, change)
    panels[1].set_ylabel("norm")
    _curve(panels[2], k, rho, GREY, "o", "penalty coefficient ρ")
    _curve(panels[2], k, step_size, GREEN, "s", "multiplier step s", ls="--")
    pull = floats(step.pull for step in outer)
    _curve(panels[2], k, pull, ORANGE, "^", "pull", ls=":")
    log_if_wide(panels[2], rho, step_size, pull)
    panels[2].set_ylabel("ρ, s and pull" if has_values(step_size) else "ρ and pull")
    for panel in panels[:3]:
        legend_above(panel)
    if conditions:
        _condition_marks(panels[3], outer)
    panels[-1].set_xlabel("outer iteration k")
    whole_numbers(panels[-1].xaxis)
    figure.align_ylabels(list(panels[:3]))
    return figure


def _curve(
    axes: Axes,
    x: Sequence[int],
    y: Sequence[float],
    colour: str,
    mark: str,
    label: str,
    ls: str = "-",
) -> None:
    if has_values(y):
        axes.plot(
            x, y, color=colour, marker=mark if marker(len(x)) else "", ms=4, label=label, ls=ls
        )


def _condition_marks(axes: Axes, outer: Sequence[Outer]) -> None:
    """Mark condition (3) and (8) as met or not, by shape or place as well as by colour."""
    rows = {
        "condition (3)": [(step.k, step.condition_3) for step in outer],
        "condition (8)": [(step.k, step.condition_8) for step in outer],
    }
    for row, marks in enumerate(rows.values()):
        met = [k for k, value in marks if value]
        unmet = [k for k, value in marks if value is False]
        if marker(len(outer)):
            axes.plot(met, [-row] * len(met), "o", color=BLUE, ms=6, label="met")
            axes.plot(unmet, [-row] * len(unmet), "x", color=ORANGE, ms=6, mew=1.6, label="not met")
        else:
            # Marks would run together, but ticks above and below a line stay apart.
            axes.axhline(-row, color=LIGHT, lw=1.0)
            axes.vlines(met, -row, -row + 0.36, color=BLUE, lw=1.2, label="met (above)")
            axes.vlines(unmet, -row - 0.36, -row, color=ORANGE, lw=1.2, label="not met (below)")
        axes.annotate(
            f"{len(met)} of {len(met) + len(unmet)} met",
            xy=(1.0, -row),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color="#4B5563",
        )
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[:2], labels[:2], loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2
    )
    axes.set_yticks([0, -1], list(rows))
    axes.set_ylim(-1.6, 0.6)
    axes.grid(visible=False, axis="y")
