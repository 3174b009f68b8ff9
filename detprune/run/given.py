"""What a folder is that a command was given: one run, and with the network that the run wrote."""

from pathlib import Path

from detprune.errors import InputError
from detprune.files import file_digest
from detprune.loggers import logger
from detprune.run.directory import RunDirectory
from detprune.run.records import SUMMARY

LOGGER = logger(__name__)


def refuse_several(folder: Path) -> None:
    """Refuse the folder of a study, or of progressive pruning, where one run is needed.

    Raises:
        InputError: the folder is no run, but runs lie in it.
    """
    runs = [] if (folder / "recipe.yaml").exists() else sorted(folder.glob("*/recipe.yaml"))
    if runs:
        raise InputError(
            f"{folder} is no run, but holds {len(runs)} of them; give one, such as {runs[0].parent}. A study, or "
            "progressive pruning, goes on with the command that began it, and its report.html shows them all"
        )


def tell_exchanged(folder: Path) -> None:
    """Warn if ``pruned.pt`` of a run is another file than the one that the run measured and proved."""
    run = RunDirectory(folder)
    summary = run.summary()
    proved = None if summary is None or summary.verified is None else summary.verified.sha256
    if proved is not None and run.pruned.is_file() and file_digest(run.pruned) != proved:
        LOGGER.warning(
            "%s is not the file that this run wrote and measured (verified.sha256 in %s differs): the numbers of "
            "the run are not this network's",
            *(run.pruned, SUMMARY),
        )
