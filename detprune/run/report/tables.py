"""A page of tables and figures over several runs, and the same tables as Markdown."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from detprune.files.atomic import atomic
from detprune.run.report.template import render

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table as text, ready to be shown; `links` holds the link of each row's first cell, or an empty text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    links: Sequence[str] = ()

    def link(self, row: int) -> str:
        """The link of a row; empty if it has none."""
        return self.links[row] if self.links else ""

    def markdown(self) -> str:
        """The table in Markdown, under its title."""
        head = f"| {' | '.join(self.header)} |\n| {' | '.join('---' for _ in self.header)} |\n"
        rows = ""
        for index, (first, *rest) in enumerate(self.rows):
            link = self.link(index)
            rows += f"| {' | '.join([f'[{first}]({link})' if link else first, *rest])} |\n"
        return f"{self.title}\n\n{head}{rows}"


@dataclass(frozen=True)
class Picture:
    """The file of a figure, and its title."""

    title: str
    file: Path


def number(value: float | None) -> str:
    """A number with two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def report_link(folder: Path, run: str) -> str:
    """The address of a run's report in a page of its folder; empty if there is none."""
    return f"{quote(run)}/report.html" if (folder / run / "report.html").is_file() else ""


def write_page(
    folder: Path,
    *,
    title: str,
    facts: str,
    tables: Sequence[Table],
    heading: str,
    pictures: Sequence[Picture],
    runs: Table,
) -> None:
    """Write ``table.md`` and ``report.html`` into a folder.

    Args:
        folder: an existing folder.
        title, facts: title of the page, and a few sentences on what was run.
        tables: the results; the first column of each names its rows.
        heading: stands over the pictures.
        pictures: PNG files; the page holds them itself.
        runs: a row per run; its last column is the command.
    """
    text = "\n".join([f"# {title}\n", facts + "\n", *(t.markdown() for t in (*tables, runs))])
    write_text(folder / "table.md", text)
    page = render(
        "tables.html.j2",
        title=title,
        facts=facts,
        tables=tables,
        heading=heading,
        figures=[
            {"title": p.title, "image": b64encode(p.file.read_bytes()).decode()} for p in pictures
        ],
        runs=runs,
    )
    write_text(folder / "report.html", page)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
