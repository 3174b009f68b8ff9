"""Progressive pruning (Ye et al. 2018, "Progressive weight pruning of deep neural networks using ADMM").

The target rises in steps. A pool holds the best networks so far, whatever their rates are. All of them are pruned
to the next rate, by constrained training and masked retraining. Then the best child replaces its parent.

Choices made where the source is silent: the pool starts with the dense network alone, and fills up before
any parent is replaced; the best child is the one with the best metric after masked retraining; of equal children it
is the one of the older parent.
"""

from collections.abc import Sequence
from pathlib import Path

from detprune.errors import InputError
from detprune.run.claim import absolute
from detprune.run.directory import LOGGER
from detprune.run.recipe import Settings
from detprune.run.studies.planned import (
    DENSE_ONLY,
    PlannedRun,
    Runs,
    folder_of_runs,
)
from detprune.run.studies.progressive.lineage import Network
from detprune.run.studies.progressive.results import write_lineage
from detprune.run.studies.progressive.spec import Progressive
from detprune.run.studies.spec import rate_name, refuse_fixed
from detprune.run.studies.teachers import check_teachers


def run_progressive(
    file: Path, out: Path | None, changes: Sequence[Settings], jobs: int | None
) -> tuple[Path, bool]:
    """Run all steps that are not finished, then write table, lineage and report into the folder.

    Args:
        file: rates, pool and recipe.
        out: folder of all runs; ``runs/<name>`` by default.
        changes: settings of every run, on top of the file's own settings.
        jobs: runs at a time; by default one per GPU, and one without a GPU.

    Returns:
        The folder, and whether every rate was reached by at least one network.

    Raises:
        InputError: anything wrong with file or recipe, before the first run; a folder that holds other runs.
    """
    spec = Progressive.read(file)
    folder = absolute(out or Path("runs") / spec.name)
    for origin, given in [("settings", spec.settings), *(("--set", each) for each in changes)]:
        refuse_fixed(origin, given, {"budget.compression": "rates"})
    settings = [spec.settings, *changes]
    dense = Network(PlannedRun.plan(folder / "dense", spec.recipe, [*settings, DENSE_ONLY]), 1.0)
    first = dense.run.recipe.from_dense(dense.run.folder)
    # check all recipes before any run starts
    children = [_child(dense, rate, [*settings, first], folder) for rate in spec.rates]
    check_teachers([child.run for child in [dense, *children]], folder)

    with folder_of_runs(folder, [dense.run]):
        dense.run.check_same(dense.run.recipe.dense_part)
        runs = Runs(jobs)
        runs.all([dense.run])
        if not dense.run.finished:
            return folder, False
        networks, best = _prune(spec, dense, settings, runs)
        write_lineage(spec, folder, networks, best)
    return folder, len(best) == len(spec.rates)


def _prune(
    spec: Progressive, dense: Network, settings: Sequence[Settings], runs: Runs
) -> tuple[list[Network], list[Network]]:
    """Prune step by step; return all networks and the best of each rate. It ends early if all runs of a rate fail."""
    folder = dense.run.folder.parent
    networks, pool, best = [dense], [dense], []
    for rate in spec.rates:
        children = [_child(p, rate, [*settings, *_start(p, dense)], folder) for p in pool]
        for child in children:
            child.run.check_same()
        runs.all(child.run for child in children)
        children = [child for child in children if child.run.finished]
        if not children:
            LOGGER.error("no run reached %sx", rate_name(rate))
            break
        sign = 1 if children[0].summary.headline.higher_is_better else -1
        winner = max(children, key=lambda child: sign * child.final)
        networks += children
        best.append(winner)
        if len(pool) < spec.pool:
            pool.append(winner)
        else:
            pool = [winner if network is winner.parent else network for network in pool]
        LOGGER.info(
            "%sx: %.4f, from %s",
            rate_name(rate),
            winner.final,
            winner.parent and winner.parent.label,
        )
    return networks, best


def _start(parent: Network, dense: Network) -> list[Settings]:
    """Settings by which a child starts from its parent's weights; its teacher is the dense network, not the parent."""
    recipe, folder = parent.run.recipe, parent.run.folder
    if not parent.parent:
        return [recipe.from_dense(folder)]
    return [recipe.from_pruned(folder), dense.run.recipe.taught_by_dense(dense.run.folder)]


def _child(parent: Network, rate: float, settings: Sequence[Settings], folder: Path) -> Network:
    plan = PlannedRun.plan(
        folder / f"{rate_name(rate)}x_from_{parent.label}",
        parent.run.recipe_file,
        [*settings, {"budget.compression": rate}],
    )
    if plan.recipe.pruning_epochs == 0:
        raise InputError(
            "neither constrained training nor masked retraining has epochs, so that no step would train"
        )
    return Network(plan, rate, parent)
