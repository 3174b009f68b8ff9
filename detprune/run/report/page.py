"""The page `report.html` of a run directory: one file, figures embedded, no scripts, no network."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.run.report.content import page_content
from detprune.run.report.figures import FIGURES
from detprune.run.report.pictures import read_pictures
from detprune.run.report.run_files import read_run
from detprune.run.report.style import drawing, save
from detprune.run.report.template import render


@dataclass(frozen=True)
class _Shown:
    title: str
    caption: str
    image: str  # base64


def write_report(run_dir: Path) -> Path:
    """Write `report.html` and `figures/*.png` into a finished run's directory.

    Reads only the files of that directory. The page holds its figures, and the pictures that
    `pictures/pictures.json` lists, itself and can be passed on alone. What the run has no files for
    is left out and named on the page. Returns the page's path; raises `InputError` where the run
    is not finished or its files cannot be used.
    """
    run = read_run(Path(run_dir))
    folder = run.path / "figures"
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is no folder; delete it, or move it away, and report again")
    folder.mkdir(exist_ok=True)
    shown: list[_Shown] = []
    absent: list[tuple[str, str]] = []
    with drawing():
        for entry in FIGURES:
            file = folder / f"{entry.slug}.png"
            figure = entry.draw(run)
            if figure is None:
                # A figure of an earlier report would be taken for one of this report.
                file.unlink(missing_ok=True)
                absent.append((entry.title, entry.lacking(run)))
                continue
            save(figure, file)
            image = base64.b64encode(file.read_bytes()).decode()
            shown.append(_Shown(entry.title, entry.caption + entry.remark(run), image))
    pictures, missing = read_pictures(run.path)
    page = run.path / "report.html"
    content = render(
        "report.html.j2",
        **page_content(run),
        figures=shown,
        absent=absent,
        pictures=pictures,
        missing_pictures=missing,
    )
    with atomic(page) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return page
