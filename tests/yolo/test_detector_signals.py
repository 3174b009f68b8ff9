"""SIGTERM in the middle of a detector's constrained training."""

from pathlib import Path
from typing import Any

import pytest

from ended_runs import check_a_run_that_is_ended


@pytest.mark.slow
def test_a_stage_that_is_ended(
    tmp_path: Path, tiny_detector: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    recipe = tiny_detector
    recipe["data"] = {"drawn": {"train": 8, "val": 4, "size": 64, "seed": 1}}
    recipe["train"]["nbs"] = 8
    recipe["stages"]["dense"]["epochs"] = 1
    recipe["stages"]["constrained"].update(epochs=2000, every=1, check_every=0)
    file = "constrained/weights/last.detprune.pt"
    check_a_run_that_is_ended(tmp_path, recipe, file, caplog)
