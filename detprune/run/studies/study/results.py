"""Results of a study, as numbers and tables."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detprune.run.directory import RunDirectory
from detprune.run.metrics import Metric
from detprune.run.records import Stage, Summary
from detprune.run.report.tables import NOTHING, Table, number, report_link
from detprune.run.studies.spec import rate_name
from detprune.run.studies.study.spec import Baseline, Cell, Published, Study

STAGES: dict[Stage, str] = {"hard_pruned": "hard-pruned", "final": "final"}


class Results:
    """The summaries of a study's finished runs."""

    def __init__(self, study: Study, folder: Path, commands: Mapping[Cell, str]) -> None:
        self.study, self.folder, self.commands = study, folder, commands
        self.dense = {b: RunDirectory(folder / b.folder).summary() for b in study.baselines}
        self.cells = {cell: RunDirectory(folder / cell.folder).summary() for cell in study.cells}
        done = [s for s in (*self.cells.values(), *self.dense.values()) if s is not None]
        self.example = done[0] if done else None
        self.metric = self.example.headline if self.example else Metric("metric", per_cent=False)

    def values(self, model: str, method: str, rate: float, stage: Stage) -> list[float]:
        """The metric after a stage, for all seeds whose runs are finished."""
        found = [
            summary
            for cell, summary in self.cells.items()
            if (cell.baseline.model, cell.method, cell.rate) == (model, method, rate)
        ]
        values = [summary.at(stage) for summary in found if summary is not None]
        return [self.metric.scale * value for value in values if value is not None]

    def baseline(self, model: str) -> list[float]:
        """The dense metric, for all seeds."""
        found = [summary for b, summary in self.dense.items() if b.model == model]
        values = [summary.dense for summary in found if summary is not None]
        return [self.metric.scale * value for value in values if value is not None]

    def tables(self) -> list[Table]:
        """One table per model: a row per rate, columns per method (hard-pruned, final), then published numbers."""
        study = self.study
        columns = [(stage, method) for stage in STAGES for method in study.methods]
        header = ["rate", *(f"{method} {STAGES[stage]}" for stage, method in columns)]
        tables = []
        for model in study.labels:
            rows = [
                [
                    study.label_of(rate),
                    *(mean(self.values(model, m, rate, stage)) for stage, m in columns),
                ]
                for rate in study.sorted_rates(model)
            ]
            title = f"{model}: " if model else ""
            title += f"{self.metric.label}, dense {mean(self.baseline(model))}"
            tables.append(Table(title, header, rows))
        if study.published is not None:
            tables.append(_published_table(study.published))
        return tables

    def runs(self) -> Table:
        """Every run with the command that reproduces it, and a link to its report."""
        rows, links = [], []
        for cell, summary in self.cells.items():
            cells = [cell.baseline.model] if self.study.models else []
            cells += [cell.method, self.study.label_of(cell.rate), str(cell.baseline.seed)]
            if summary is None:
                cells += [NOTHING] * 4
            else:
                values = [summary.at(stage) for stage in ("dense", *STAGES)]
                cells += [number(None if v is None else self.metric.scale * v) for v in values]
                cells.append(f"{(summary.seconds['total'] or 0) / 60:.1f}")
            rows.append([*cells, f"`{self.commands[cell]}`"])
            links.append(report_link(self.folder, cell.folder))
        model = ["model"] if self.study.models else []
        header = [*model, "method", "rate", "seed", "dense", *STAGES.values(), "minutes", "command"]
        return Table("Runs", header, rows, links)

    def facts(self) -> str:
        """A text with models, data, epochs, seeds and versions."""
        done = [summary for summary in self.cells.values() if summary is not None]
        if not done:
            return "No run has finished yet."
        models = dict.fromkeys(summary.model for summary in done)
        epochs = sorted({summary.pruning_epochs for summary in done})
        return (
            f"{', '.join(models)} on {done[0].data}; {len(done)} of {len(self.cells)} runs finished; "
            f"constrained training and masked retraining together {' or '.join(map(str, epochs))} epochs, "
            f"the same for every method; seeds {', '.join(map(str, self.study.seeds))}; "
            f"torch {done[0].versions['torch']}. Mean ± standard deviation over the seeds; rates are "
            + (
                "over the pruned tensors."
                if self.study.target == "compression"
                else "of the dense network's."
            )
        )


def mean(values: Sequence[float]) -> str:
    """Mean ± standard deviation, without the latter for a single value."""
    if not values:
        return NOTHING
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _published_table(published: Published) -> Table:
    columns = [(index, m) for index in range(2) for m in published.values]
    stages = list(STAGES.values())
    header = ["rate", *(f"{method} {stages[index]}" for index, method in columns)]
    rates = sorted({rate for values in published.values.values() for rate in values})
    rows = [
        [
            f"{rate_name(rate)}×",
            *(
                number(published.values[method].get(rate, (None, None))[index])
                for index, method in columns
            ),
        ]
        for rate in rates
    ]
    return Table(f"Published: {published.source}", header, rows)


def plain_results(results: Results) -> dict[str, Any]:
    """The content of ``results.json``."""

    def entry(baseline: Baseline, summary: Summary | None, **more: Any) -> dict[str, Any]:
        keys = ("dense", "hard_pruned", "final", "compression", "epochs", "seconds")
        found = {key: None if summary is None else getattr(summary, key) for key in keys}
        return {"model": baseline.model or None, "seed": baseline.seed, **more, **found}

    return {
        "name": results.study.name,
        "metric": results.metric.name,
        "cells": [
            entry(
                cell.baseline,
                summary,
                method=cell.method,
                rate=cell.rate,
                command=results.commands[cell],
            )
            for cell, summary in results.cells.items()
        ],
    }
