"""The teachers that runs of a study, or of progressive pruning, name in their recipes."""

from collections.abc import Iterable
from pathlib import Path

from detprune.errors import InputError
from detprune.run.studies.planned import PlannedRun
from detprune.run.task import check_teacher


def check_teachers(plans: Iterable[PlannedRun], folder: Path) -> None:
    """Check that the teachers of all runs to be made exist, for a run looks for its own only after the dense networks.

    Raises:
        InputError: one does not; the dense networks of the folder itself are still to be trained.
    """
    for plan in plans:
        teacher = getattr(getattr(plan.recipe, "distillation", None), "teacher", None)
        if teacher is None or folder in teacher.parents or plan.finished:
            continue
        try:
            check_teacher(teacher)
        except InputError as error:
            raise InputError(f"{plan.folder.name}: {error}") from error
