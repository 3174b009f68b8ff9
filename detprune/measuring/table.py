"""A measurement as a table in the terminal."""

from rich.table import Table

from detprune.measuring.measurement import Latency, Measurement, Size

_WORDS = (
    ("parameters", "parameters"),
    ("nonzero", "of them not zero"),
    ("macs", "MACs"),
    ("pt_bytes", "bytes of .pt"),
    ("onnx_bytes", "bytes of .onnx"),
)


def measurement_table(title: str, found: Measurement) -> Table:
    """Dense, pruned, and their ratio; milliseconds are medians, ratios the median of those of each round."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    columns = ("pruned",) if found.dense is None else ("dense", "pruned", "ratio", "quartiles")
    for column in columns:
        table.add_column(column, justify="right")
    for key, words in _WORDS:
        table.add_row(words, *_size_cells(found.dense, found.pruned, key))
    for latency in found.latencies:
        table.add_row(f"ms in {latency.runtime}", *_latency_cells(latency, found.dense is not None))
    shapes = ", ".join(" × ".join(map(str, shape)) for shape in found.shapes)
    threads = (
        f", {found.threads} thread{'s' * (found.threads > 1)}" if found.device == "cpu" else ""
    )
    lines = [f"inputs {shapes}, {found.machine}{threads}", *found.notes]
    if found.dense is not None and (rounds := max(y.rounds for y in found.latencies)):
        lines.insert(1, f"timed in turn in up to {rounds} rounds; ratio: median of the rounds' own")
    table.caption = "\n".join(lines)
    table.caption_justify = "left"
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
