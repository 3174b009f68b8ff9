"""The work of ``detprune profile``: tables for a network in a file or a run."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.channels.latency_table import read_table
from detprune.errors import InputError
from detprune.files import check_output_path
from detprune.files.folders import complete_folder, output_folder
from detprune.latency_targets import LatencyTarget
from detprune.run.latency.choosing import with_table, write_table
from detprune.run.latency.profiling import Subject, empty_table, fill, write_graphs
from detprune.run.latency.timing import check_target
from detprune.run.measuring.deployment import deployed
from detprune.run.measuring.sources import measured

_SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def write_files(
    path: Path,
    out: Path,
    target: LatencyTarget,
    round_to: int,
    *,
    measure: bool,
    onnx: Path | None,
) -> Iterator[str]:
    """Write the table of a network, filled in or not, and ONNX files.

    Yields:
        Lines for the user.

    Raises:
        InputError: no network, a file that is there already, a target that is not here.
    """
    check_output_path(out, "--out")
    if os.path.lexists(out):
        raise InputError(
            f"--out: {out} exists already; choose another file, or check it with --check"
        )
    if onnx is not None and onnx.exists() and (not onnx.is_dir() or any(onnx.iterdir())):
        raise InputError(f"--onnx: {onnx} is there and not an empty folder; choose another one")
    folder = None if onnx is None else output_folder(onnx)
    if measure:
        check_target(target)
    subject = _subject(path, target, round_to)
    table = empty_table(subject, target)
    if measure:
        table = fill(table, subject, target)
    else:
        table = dataclasses.replace(table, target={}, machine="to be filled in")
    files: list[str] = []
    if folder is not None:
        complete_folder(
            folder,
            lambda: False,
            lambda place: files.extend(write_graphs(table, subject, place)),
        )
    write_table(table, out)
    times = sum(own.ms.size for own in table.layers) + len(table.networks)
    yield f"table: {out} ({times} times)"
    if not measure:
        yield "write milliseconds in place of null; then: detprune profile MODEL --check TABLE"
    if onnx is not None:
        yield f"ONNX files: {onnx} ({len(files) - 1}; files.csv says where in the table each time belongs)"


def check_file(path: Path, file: Path) -> Table:
    """Check a table against a network; what it predicts for several budgets, as a table for a terminal.

    Raises:
        InputError: the table is not filled in, wrong, or of another network.
    """
    read = read_table(file)
    size = next((shape[-1] for shape in read.inputs if len(shape) == 4), None)
    subject = _subject(path, LatencyTarget(size=size), read.round_to)
    table = Table(title=f"{file}: dense {read.networks[0].ms:.3f} ms", title_justify="left")
    for column in ("latency", "predicted", "ms", "MACs left", "parameters left"):
        table.add_column(column, justify="right")
    for share in _SHARES:
        budget = with_table(Budget(latency=share), file)
        try:
            _, predicted, _ = subject.channels.latency_of(subject.model, budget)
        except InputError as error:
            if share == _SHARES[0]:
                raise
            table.caption = str(error)
            break
        plan = subject.channels.plan(subject.model, budget)
        table.add_row(
            f"{share:g}",
            f"{predicted:.3f}",
            f"{predicted * (read.networks[0].ms or 0):.3f}",
            f"{plan.macs_left / plan.macs:.3f}",
            f"{plan.parameters_left / plan.parameters:.3f}",
        )
    return table


def _subject(path: Path, target: LatencyTarget, round_to: int) -> Subject:
    found = measured(path, None, target.size, target.batch)
    opened = found.dense or found.pruned
    own = deployed(opened.network)
    channels = CoupledChannels(opened.inputs, round_to=round_to, forward=own.forward)
    return Subject.on(target, opened.network, channels, Budget(latency=0.5), own.finish)
