"""A measurement as rows of text, for the terminal and for reports."""

from rich.table import Table

from detprune.run.measurements import Latency, Measurement, Size

_WORDS = (
    ("parameters", "parameters"),
    ("nonzero", "nonzero parameters"),
    ("macs", "MACs"),
    ("pt_bytes", "bytes of .pt"),
    ("onnx_bytes", "bytes of .onnx"),
)


def columns(found: Measurement) -> tuple[str, ...]:
    """Titles of the columns of ``rows``."""
    return ("", "network") if found.dense is None else ("", "dense", "pruned", "ratio", "quartiles")


def rows(found: Measurement) -> list[list[str]]:
    """Sizes, then milliseconds by runtime: dense, pruned, their ratio, and its first and third quartile.

    Milliseconds are medians, their ratio is the median of those of each round.
    """
    width = len(columns(found))
    cells = [[words, *_size_cells(found.dense, found.pruned, key)] for key, words in _WORDS]
    cells += [
        [f"ms in {latency.runtime}", *_latency_cells(latency, found.dense is not None)]
        for latency in found.latencies
    ]
    return [row + [""] * (width - len(row)) for row in cells]


def conditions(found: Measurement) -> list[str]:
    """The conditions of a measurement, and notes on what was not measured."""
    shapes = ", ".join(" × ".join(map(str, shape)) for shape in found.shapes)
    threads = (
        f", {found.threads} thread{'s' * (found.threads > 1)}" if found.device == "cpu" else ""
    )
    lines = [f"inputs {shapes}, {found.machine}{threads}"]
    count = max((latency.rounds for latency in found.latencies), default=0)
    if found.dense is not None and count:
        lines.append(f"timed in turn in up to {count} rounds; ratio: median of the rounds' own")
    return [*lines, *found.notes]


def measurement_table(title: str, found: Measurement) -> Table:
    """A measurement as a table for the terminal."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns(found)):
        table.add_column(column, no_wrap=not number, justify="right" if number else "left")
    for row in rows(found):
        table.add_row(*row)
    table.caption, table.caption_justify = "\n".join(conditions(found)), "left"
    return table


def _size_cells(dense: Size | None, pruned: Size, key: str) -> list[str]:
    own = getattr(pruned, key)
    if dense is None:
        return [_number(own)]
    before = getattr(dense, key)
    ratio = f"{own / before:.3f}" if own is not None and before else ""
    return [_number(before), _number(own), ratio, ""]


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _latency_cells(latency: Latency, paired: bool) -> list[str]:
    if latency.note is not None:
        return [latency.note]
    cells = [_milliseconds(latency.pruned_ms)]
    if not paired:
        return cells
    spread = "" if latency.quartiles is None else "{:.3f} to {:.3f}".format(*latency.quartiles)
    ratio = "" if latency.ratio is None else f"{latency.ratio:.3f}"
    return [_milliseconds(latency.dense_ms), *cells, ratio, spread]


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
