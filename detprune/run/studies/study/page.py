"""The files with the results of a study."""

import json
from collections.abc import Mapping
from pathlib import Path

from detprune.run.report.tables import write_page, write_text
from detprune.run.studies.study.figures import draw_study
from detprune.run.studies.study.results import Results, plain_results
from detprune.run.studies.study.spec import Cell, Study


def write_results(study: Study, folder: Path, commands: Mapping[Cell, str]) -> None:
    """Write ``table.md``, ``results.json``, ``figures/*.png`` and ``report.html`` into a study's folder."""
    results = Results(study, folder, commands)
    write_text(folder / "results.json", json.dumps(plain_results(results), indent=1) + "\n")
    write_page(
        folder,
        title=study.name,
        facts=results.facts(),
        tables=results.tables(),
        heading="Figures",
        pictures=draw_study(results, folder),
        runs=results.runs(),
    )
