"""Every example runs, and what it prints is what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

SAID = {
    "own_loop": r"retrained: 9\d\.\d%[\s\S]*10\.00×",
    "channels_and_shrink": r"trained on: 9\d\.\d%|trained on: 100\.0%",
    "lanes_loop": r"retrained: \d+\.\d%[\s\S]*10\.00×",
    "yolo_from_python": r"1,\d{3},\d{3} of 3,\d{3},\d{3} parameters",
}


def test_no_example_is_left_out() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} == SAID.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(SAID[name], done.stdout), done.stdout[-3000:]
