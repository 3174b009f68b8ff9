"""The runs of a study, and the writing of its results."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from detprune.errors import InputError, listed
from detprune.run.claim import absolute
from detprune.run.recipe import Settings
from detprune.run.studies.planned import (
    DENSE_ONLY,
    PlannedRun,
    Runs,
    folder_of_runs,
)
from detprune.run.studies.spec import refuse_fixed
from detprune.run.studies.study.page import write_results
from detprune.run.studies.study.spec import Baseline, Cell, Study
from detprune.run.studies.teachers import check_teachers

_LATER = ("method", "set", "budget", "batch_norm_images", "distillation", "stages")
"""Keys of a recipe that its dense network does not depend on, but for the stage of its own."""


def run_study(
    file: Path,
    out: Path | None,
    changes: Sequence[Settings],
    jobs: int | None,
    only: Sequence[str] | None = None,
) -> tuple[Path, bool]:
    """Run all runs that are not finished, then write table, figures and report into the folder.

    Args:
        file: the study.
        out: folder of all runs; ``runs/<name of the study>`` by default.
        changes: settings of every run, on top of the study's own settings.
        jobs: runs at a time; by default one per GPU, and one without a GPU.
        only: patterns of names; pruned runs whose name matches none are left out this time.

    Returns:
        The folder, and whether all runs that were asked for succeeded.

    Raises:
        InputError: anything wrong with study or recipes, before the first run; budgets of epochs that
            differ; a folder that holds another study's runs; a pattern that matches no run.
    """
    study = Study.read(file)
    folder = absolute(out or Path("runs") / study.name)
    dense, cells = plan_study(study, folder, changes)
    every = [*dense.values(), *cells.values()]
    commands = {cell: plan.command for cell, plan in cells.items()}
    if only:
        cells = _matching(cells, only)
        dense = {cell.baseline: dense[cell.baseline] for cell in cells}
    for baseline in dense.values():
        baseline.check_same(baseline.recipe.dense_part)
    for planned in cells.values():
        planned.check_same()
    check_teachers(cells.values(), folder)

    with folder_of_runs(folder, every):
        runs = Runs(jobs)
        runs.all(dense.values())
        runs.all(plan for cell, plan in cells.items() if dense[cell.baseline].finished)
        write_results(study, folder, commands)
    return folder, all(plan.finished for plan in (*dense.values(), *cells.values()))


def plan_study(
    study: Study, folder: Path, changes: Sequence[Settings]
) -> tuple[dict[Baseline, PlannedRun], dict[Cell, PlannedRun]]:
    """All runs of a study, with their recipes resolved; see `run_study`."""
    _check_effects(study, changes)
    dense = {b: _plan_baseline(study, b, folder, changes) for b in study.baselines}
    cells = {c: _plan_cell(study, c, folder, changes, dense[c.baseline]) for c in study.cells}
    _check_epochs(cells)
    return dense, cells


def _check_effects(study: Study, changes: Sequence[Settings]) -> None:
    """Refuse settings that would make runs other than their names say, and those that no run would feel."""
    fixed = {"seed": "seeds", f"budget.{study.target}": "rates"}
    for origin, settings in [
        ("settings", study.settings),
        *((f"models.{label}", own) for label, own in study.models.items()),
        *((f"methods.{label}", own) for label, own in study.methods.items()),
        *(("--set", settings) for settings in changes),
    ]:
        refuse_fixed(origin, settings, fixed)
    for key in [key for settings in changes for key in settings]:
        of_dense = key.partition(".")[0] not in _LATER or key.startswith("stages.dense")
        if not of_dense and all(_replaces(own, key) for own in study.methods.values()):
            raise InputError(
                f"--set {key} has no effect, because each of the methods sets it by itself: {listed(study.methods)}; "
                "change it in the file"
            )


def _replaces(settings: Settings, key: str) -> bool:
    """Whether settings that are applied later leave nothing of a key that was set."""
    return any(key == own or key.startswith(f"{own}.") for own in settings)


def _matching(cells: dict[Cell, PlannedRun], only: Sequence[str]) -> dict[Cell, PlannedRun]:
    names = [cell.folder for cell in cells]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"only is {pattern!r}, which no run matches; the runs are: {listed(names)}"
            )
    return {
        cell: plan
        for cell, plan in cells.items()
        if any(fnmatchcase(cell.folder, pattern) for pattern in only)
    }


def _plan_baseline(
    study: Study, baseline: Baseline, folder: Path, changes: Sequence[Settings]
) -> PlannedRun:
    settings = [*study.settings_of(baseline), *changes, DENSE_ONLY]
    return PlannedRun.plan(folder / baseline.folder, study.recipe, settings)


def _plan_cell(
    study: Study, cell: Cell, folder: Path, changes: Sequence[Settings], dense: PlannedRun
) -> PlannedRun:
    settings = [
        *study.settings_of(cell.baseline),
        *changes,
        dense.recipe.from_dense(dense.folder),
        study.methods[cell.method],
        {f"budget.{cell.target}": cell.rate},
    ]
    return PlannedRun.plan(folder / cell.folder, study.recipe, settings)


def _check_epochs(cells: dict[Cell, PlannedRun]) -> None:
    """Check that, for each model and rate, all methods train for the same number of epochs."""
    lengths: dict[tuple[str, float], dict[int, list[str]]] = {}
    for cell, plan in cells.items():
        compared = lengths.setdefault((cell.baseline.model, cell.rate), {})
        compared.setdefault(plan.recipe.pruning_epochs, []).append(cell.folder)
    for compared in lengths.values():
        if len(compared) > 1:
            found = "; ".join(
                f"{epochs} in {listed(names)}" for epochs, names in sorted(compared.items())
            )
            raise InputError(
                "methods are compared at the same number of epochs of constrained training and masked retraining "
                f"together, but here are: {found}; give every method the same number"
            )
