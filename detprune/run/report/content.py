"""The numbers and texts of the page, formatted; the template only places them."""

import math
from pathlib import PurePath
from statistics import median
from typing import Any

from detprune.methods import METHODS
from detprune.run.events import FILE
from detprune.run.measuring import Measurement
from detprune.run.measuring.table import columns, conditions, rows
from detprune.run.metrics import Metric
from detprune.run.records import Layer, Stage, Summary, Verified
from detprune.run.report.run_files import Run
from detprune.run.report.training import STAGES


def page_content(run: Run) -> dict[str, Any]:
    """Return the variables of the template that are not figures, as text ready to be shown."""
    summary = run.summary
    pruned = run.pruned
    kept, total = sum(y.nonzero for y in pruned), sum(y.numel for y in pruned)
    return {
        "title": f"{summary.model} on {summary.data}, {_how_far(summary)}",
        "subtitle": (f"{_method(summary.method)}, {summary.sparsity_set} sparsity, {summary.task}"),
        "metric": summary.headline.header,
        "points": " (points)" if summary.headline.per_cent else "",
        "headline": _headline(run),
        "metrics": _all_metrics(run),
        "size": _size(summary),
        "sizes_after_removal": _sizes_after_removal(summary),
        "gained": None if summary.measured is None else _gained(summary.measured),
        "verified": _verification(run, summary.verified, kept),
        "settings": _settings(run),
        "command": summary.command,
        "recipe": run.recipe,
        "layers": [_layer_row(number, y) for number, y in enumerate(summary.layers, start=1)],
        "total": _layer_row(0, Layer(name="", shape=(), numel=total, nonzero=kept, pruned=True)),
        "notes": summary.notes,
        "warnings": _warnings(run),
    }


def _how_far(summary: Summary) -> str:
    if summary.removal is None:
        return f"pruned {summary.compression:.2f}×"
    left = summary.removal.small.macs / summary.removal.dense.macs
    return f"{100 * left:.0f} % of the MACs left"


def _size(summary: Summary) -> list[tuple[str, str, str, str]]:
    """Rows of rates over the pruned tensors and over all tensors; empty if channels were removed, not set to zero."""
    if summary.removal is not None:
        return []
    return [
        (
            "Compression",
            "all weights / nonzero weights",
            f"{summary.compression:.2f}×",
            f"{summary.model_compression:.2f}×",
        ),
        (
            "Sparsity",
            "zero weights / all weights",
            f"{100 * summary.sparsity:.2f} %",
            f"{100 * summary.model_sparsity:.2f} %",
        ),
    ]


def _gained(found: Measurement) -> dict[str, Any]:
    """The table of sizes and milliseconds, dense and pruned."""
    return {"columns": columns(found), "rows": rows(found), "conditions": conditions(found)}


def _sizes_after_removal(summary: Summary) -> list[tuple[str, str, str, str]]:
    """Rows of sizes: dense, small, and the share that is left; empty if no channels were removed."""
    if summary.removal is None or summary.measured is not None:
        return []
    before, after = summary.removal.dense, summary.removal.small
    return [
        (
            name,
            f"{dense / 1e6:,.3f} million",
            f"{small / 1e6:,.3f} million",
            f"{100 * small / dense:.1f} %",
        )
        for name, dense, small in (
            ("Multiply-accumulate operations (MACs)", before.macs, after.macs),
            ("Parameters", before.parameters, after.parameters),
        )
    ]


def _method(name: str) -> str:
    kind = METHODS.get(name.replace("-", "_"))
    return name if kind is None else kind.title or name


def _number(metric: Metric, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not measured"
    return metric.text(value)


def _difference(metric: Metric, value: float | None, base: float | None) -> str:
    if value is None or base is None or not math.isfinite(value - base):
        return "–"
    return metric.difference(value, base).replace("-", "−")


def _retrained(summary: Summary) -> str:
    if not summary.epochs.get("retrain"):
        return "not retrained"
    small = summary.removal is not None
    return "after retraining of the small network" if small else "after masked retraining"


def _headline(run: Run) -> list[tuple[str, str, str, str, str]]:
    s = run.summary
    metric = s.headline
    return [
        ("Dense", "before pruning", _number(metric, s.dense), "–", "–"),
        (
            "Hard-pruned",
            "before any retraining",
            _number(metric, s.hard_pruned),
            _difference(metric, s.hard_pruned, s.dense),
            "–",
        ),
        (
            "Final",
            _retrained(s),
            _number(metric, s.final),
            _difference(metric, s.final, s.dense),
            _difference(metric, s.final, s.hard_pruned),
        ),
    ]


def _all_metrics(run: Run) -> dict[str, Any] | None:
    """Return the table of all metrics, or None if there is only the headline metric."""
    metrics = run.summary.metrics
    if metrics is None:
        return None
    stages: tuple[Stage, ...] = ("dense", "hard_pruned", "final")
    dense, hard, final = (metrics.get(stage, {}) for stage in stages)
    names = list(dict.fromkeys([*dense, *hard, *final]))
    names.sort(key=lambda name: name != run.summary.metric)  # the headline first
    if names in ([], [run.summary.metric]):
        return None
    units = [run.summary.unit(name) for name in names]
    rows = [
        (
            unit.header,
            *(_number(unit, stage.get(unit.name)) for stage in (dense, hard, final)),
            *(_difference(unit, s.get(unit.name), dense.get(unit.name)) for s in (hard, final)),
        )
        for unit in units
    ]
    shares = [unit.per_cent for unit in units]
    unit = " (points)" if all(shares) else " (points where in %)" if any(shares) else ""
    return {"rows": rows, "unit": unit}


def _verification(run: Run, verified: Verified | None, kept: int) -> tuple[bool, str]:
    """Compare the counts and metric of the checkpoint with those that the run reported."""
    if verified is None:
        return False, "Not verified: the final checkpoint was not read back and measured."
    # Only the file's name: the page is passed on, but the path belongs to one machine.
    text = f"{PurePath(verified.path).name}, read back:"
    good, metric = True, run.summary.headline
    if verified.nonzero is not None:
        same = verified.nonzero == kept
        good &= same
        text += f" {verified.nonzero:,} nonzero weights"
        text += " as in the layer table" if same else f" but {kept:,} in the layer table"
    if verified.metric is not None:
        final = run.summary.final
        same = final is not None and abs(verified.metric - final) < 5e-5
        good &= same
        text += "," if verified.nonzero is not None else ""
        text += f" {metric.name} {_number(metric, verified.metric)}"
        text += " as reported" if same else f" but {_number(metric, final)} reported"
    return good, f"{'Verified' if good else 'Verification differs'}: {text}."


def _settings(run: Run) -> list[tuple[str, str]]:
    s = run.summary
    rows = [
        ("Task", s.task),
        ("Model", s.model),
        ("Data", s.data),
        ("Method", _method(s.method)),
        ("Sparsity set", s.sparsity_set),
    ]
    rows += _over_iterations("Penalty coefficient ρ", [step.rho for step in run.outer])
    rows += _pull(run)
    stages = STAGES if s.removal is None else {**STAGES, "retrain": "retraining"}
    epochs = [f"{stages.get(k, k)} {v}" for k, v in s.epochs.items() if v is not None]
    rows.append(("Epochs", ", ".join(epochs)))
    rows.append(("Seed", "not set" if s.seed is None else str(s.seed)))
    times = [f"{stages.get(k, k)} {_duration(v)}" for k, v in s.seconds.items() if v is not None]
    rows.append(("Time", ", ".join(times)))
    rows += _faster_epochs(run)
    rows.append(("Versions", ", ".join(f"{k} {v}" for k, v in s.versions.items())))
    return [(name, value or "–") for name, value in rows]


def _pull(run: Run) -> list[tuple[str, str]]:
    """Row with the pull, or with the reason why it is not known; none where the method has no penalty."""
    known = _over_iterations("Pull", [step.pull for step in run.outer])
    if known or run.summary.method not in ("admm", "slr") or not run.outer:
        return known
    reason = "the penalty goes through the gradient of an optimizer other than SGD"
    return [("Pull", f"not known: {reason}, or the run is of version 0.1")]


def _faster_epochs(run: Run) -> list[tuple[str, str]]:
    """Row with the time of an epoch of retraining the small network, relative to constrained training."""
    seconds = {
        stage: [epoch.seconds for epoch in run.epochs.get(stage, ()) if epoch.seconds]
        for stage in ("constrained", "retrain")
    }
    if run.summary.removal is None or not all(seconds.values()):
        return []
    constrained, retrain = (median(taken) for taken in seconds.values())
    text = f"{retrain / constrained:.2f} of one of constrained training, in seconds (medians)"
    return [("An epoch of retraining", text)]


def _over_iterations(name: str, values: list[float | None]) -> list[tuple[str, str]]:
    known = [value for value in values if value is not None]
    if not known:
        return []
    if f"{min(known):g}" == f"{max(known):g}":
        return [(name, f"{known[0]:g} (constant)")]
    return [(name, f"{known[0]:g} → {known[-1]:g} (first → last outer iteration)")]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _layer_row(number: int, layer: Layer) -> dict[str, str | bool]:
    return {
        "number": str(number),
        "name": layer.name,
        "shape": " × ".join(map(str, layer.shape)) or "scalar",
        "numel": f"{layer.numel:,}",
        "nonzero": f"{layer.nonzero:,}",
        "kept": f"{100 * layer.kept:.2f} %",
        "width": f"{100 * min(layer.kept, 1.0):.2f}",
        "compression": f"{layer.numel / layer.nonzero:.2f}×" if layer.nonzero else "∞",
        "pruned": layer.pruned,
    }


def _warnings(run: Run) -> list[str]:
    notes = []
    kept, total = sum(y.nonzero for y in run.pruned), sum(y.numel for y in run.pruned)
    if total and abs(1 - kept / total - run.summary.sparsity) > 5e-5:
        notes.append(
            f"The layer table adds up to a sparsity of {100 * (1 - kept / total):.2f} %, but the "
            f"run reports {100 * run.summary.sparsity:.2f} %."
        )
    metric = run.summary.headline
    for stage, metrics in (run.summary.metrics or {}).items():
        listed, headline = metrics.get(metric.name), run.summary.at(stage)
        if listed is not None and headline is not None and abs(listed - headline) > 5e-5:
            notes.append(
                f"The {metric.name} of the {stage.replace('_', '-')} weights is "
                f"{_number(metric, headline)} in the result and {_number(metric, listed)} among all "
                "metrics."
            )
    if run.damaged_lines:
        lines = ", ".join(map(str, run.damaged_lines))
        notes.append(f"{FILE} has lines that could not be read and were left out: {lines}.")
    return notes
