"""What a run says about its budget before it trains."""

import logging
from pathlib import Path
from typing import Any

import pytest

from detprune.run.directory import RunDirectory
from detprune.run.pipeline import run_stages
from detprune.run.recipe import validate
from detprune_classification import ClassificationRecipe, ClassificationTask


@pytest.mark.parametrize(
    ("changes", "advised"),
    [
        ({"budget": {"compression": 8}}, True),
        ({"budget": {"sparsity": 0.95}}, True),
        ({"budget": {"compression": 7.9}}, False),
        ({"budget": {"compression": 10, "allocation": "erk"}}, False),
        ({"budget": {"compression": 10, "scope": "global"}}, False),
        ({"budget": {"compression": 10}, "set": "filter"}, False),
    ],
)
def test_even_sparsities_at_a_high_rate(
    tiny: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    advised: bool,
) -> None:
    tiny["stages"] = {stage: {"epochs": 0} for stage in ("dense", "constrained", "retrain")}
    recipe = validate(ClassificationRecipe, {**tiny, **changes})
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    with caplog.at_level(logging.INFO, "detprune"):
        run_stages(ClassificationTask(recipe, run), recipe, run, "test")
    assert ("budget.allocation: erk" in caplog.text) == advised


@pytest.mark.slow
@pytest.mark.parametrize(("inner_steps", "told"), [(16, True), (15, False)])
def test_training_that_ends_before_the_first_inner_loop(
    tiny: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    inner_steps: int,
    told: bool,
) -> None:
    """Three epochs of five steps each: the multipliers of SAS-ADMM never move where its inner loop has sixteen."""
    tiny["method"] = {"name": "sas_admm", "inner_steps": inner_steps}
    tiny["stages"] = {name: {**tiny["stages"][name], "epochs": 0} for name in ("dense", "retrain")}
    tiny["stages"]["constrained"] = {"epochs": 3, "optimizer": {"lr": 0.02}}
    recipe = validate(ClassificationRecipe, tiny)
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    with caplog.at_level(logging.INFO, "detprune"):
        run_stages(ClassificationTask(recipe, run), recipe, run, "test")
    said = "ended before the first outer iteration of SAS-ADMM did"
    assert (said in caplog.text) == told
    assert ("fewer inner_steps" in caplog.text) == told
