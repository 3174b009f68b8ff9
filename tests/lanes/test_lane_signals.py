"""SIGTERM in the middle of a lane detector's constrained training."""

import copy
from pathlib import Path
from typing import Any

import pytest
from lane_recipe import TINY

from ended_runs import check_a_run_that_is_ended


@pytest.mark.slow
def test_a_stage_that_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe: dict[str, Any] = copy.deepcopy(TINY)
    recipe["model"]["auxiliary"] = False
    recipe["data"]["drawn"] = {"train": 4, "test": 1, "seed": 1}
    recipe["stages"]["dense"]["epochs"] = 0
    recipe["stages"]["constrained"]["epochs"] = 2000
    check_a_run_that_is_ended(tmp_path, recipe, "constrained/last.ckpt", caplog, "lightning")
