"""Terminal output of the commands: log lines and tables."""

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.logging import RichHandler
from rich.table import Table

from detprune.run.directory import LOGGER, is_main_process
from detprune.run.printable import PlainFormatter

if TYPE_CHECKING:
    from detprune.run.records import Summary


class _Terminal(RichHandler):
    """Shows log records; if the terminal cannot be written to, the run goes on, and ``run.log`` has them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore a stream that cannot be written to; an error text could not be written there either."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def log_to_terminal() -> None:
    """Show detprune's log lines; processes other than the first show warnings only. The log file has all."""
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    handler = _Terminal(show_path=False, show_level=False, log_time_format="%H:%M:%S", markup=False)
    handler.setFormatter(PlainFormatter())
    handler.setLevel(logging.INFO if is_main_process() else logging.WARNING)
    LOGGER.handlers = [handler]


def print_results(directory: Path, complete: bool) -> None:
    """Print the table of several runs, and exit with code 1 if one of them failed."""
    table = directory / "table.md"
    if table.is_file():
        typer.echo(table.read_text(encoding="utf-8"))
        typer.echo(f"report: {directory / 'report.html'}")
    if not complete:
        raise typer.Exit(1)


def headline(summary: "Summary") -> Table:
    """The table of a run: its metric after every stage, and the compression reached."""
    metric = summary.headline
    table = Table(title=f"{summary.model} on {summary.data}, {summary.method}")
    table.add_column("stage")
    table.add_column(metric.header, justify="right")
    table.add_column("against dense", justify="right")
    points = " points" if metric.per_cent else ""
    for stage, value in (
        ("dense", summary.dense),
        ("hard-pruned", summary.hard_pruned),
        ("final", summary.final),
    ):
        if value is None or summary.dense is None:
            continue
        against = "" if stage == "dense" else metric.difference(value, summary.dense) + points
        table.add_row(stage, metric.text(value), against)
    if (removal := summary.removal) is None:
        table.caption = (
            f"{summary.compression:.2f}× over the pruned tensors, "
            f"{summary.model_compression:.2f}× over all parameters"
        )
    else:
        small, dense = removal.small, removal.dense
        table.caption = (
            f"{small.macs / dense.macs:.1%} of the MACs and "
            f"{small.parameters / dense.parameters:.1%} of the parameters are left"
        )
    if summary.latency is not None:
        table.caption += f"\n{summary.latency}"
    return table


def gains(summary: "Summary") -> Table | None:
    """Sizes and milliseconds of a run's dense and final network; None where they were not measured."""
    if summary.measured is None:
        return None
    from detprune.run.measuring.table import measurement_table

    return measurement_table("size and speed", summary.measured)


def listing(title: str, lines: Mapping[str, str]) -> Table:
    """A table of names, each with a line of description."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, line in lines.items():
        table.add_row(name, line)
    return table


def first_line(kind: type) -> str:
    """The first line of a docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0]
