"""The sweep: all cells from one dense network, none run twice, one that fails stops no other."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SWEEP = Path(__file__).parents[2] / "tools" / "sweep.py"


def sweep(recipe: Path, out: Path, code: int) -> str:
    rates = ["--rate", "0.5", "--rate", "4"]  # there is no compression of less than 1
    process = subprocess.run(
        [sys.executable, SWEEP, recipe, "--out", out, *rates, "--method", "magnitude"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert process.returncode == code, process.stdout + process.stderr
    return process.stdout


def test_a_sweep(tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "sweep"
    recipe.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    output = sweep(recipe, out, code=1)
    assert output.count("detprune run") == 3
    assert (out / "dense_0" / "summary.json").is_file()
    cell = yaml.safe_load((out / "magnitude_4x_0" / "recipe.yaml").read_text())
    assert cell["model"]["weights"] == str(out / "dense_0" / "checkpoints" / "dense.pt")
    assert cell["stages"]["dense"] is None
    assert "compression is 0.5" in (out / "magnitude_0.5x_0.log").read_text()
    table = (out / "table.md").read_text()
    assert "| rate | magnitude hard-pruned | magnitude final |" in table
    assert "| 4× | " in table
    assert "| 0.5× | – | – |" in table
    assert (out / "curve.png").stat().st_size > 5_000

    again = sweep(recipe, out, code=1)
    assert again.count("detprune run") == 1  # the one that failed
