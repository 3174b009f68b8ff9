"""The built wheel, in an environment that has nothing else of the project, runs a recipe."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (found,) = out.glob("detprune-*.whl")
    return found


def call(*words: object, cwd: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_a_wheel_holds_all_packages_their_data_and_both_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = (
        "detprune",
        "detprune_lightning",
        "detprune_classification",
        "detprune_lanes",
        "detprune_yolo",
    )
    for package in packages:
        assert f"{package}/py.typed" in names
    for package in ("detprune", "detprune_lightning", "detprune_classification", "detprune_yolo"):
        assert f"{package}/__init__.pyi" in names  # from where the public names are imported
    assert "detprune/run/report/report.html.j2" in names
    assert sum(name.endswith("LICENSE") for name in names) >= 2
    assert not [name for name in names if name.startswith(("tests/", "tools/", "docs/"))]


@pytest.mark.slow
def test_a_wheel_runs_a_recipe_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    pins = ROOT / "requirements.txt"
    call(
        *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python),
        *("--constraints", pins, f"detprune[classification] @ {wheel.as_uri()}"),
    )
    recipe = ROOT / "configs" / "classification" / "digits_resnet20.yaml"
    changes = [f"stages.{stage}.epochs=1" for stage in ("dense", "constrained", "retrain")]
    changes += ["data.train_limit=64", "data.test_limit=64", "measure=false"]
    sets = [word for change in changes for word in ("--set", change)]
    call(
        python.with_name("detprune"), "run", recipe, "--out", tmp_path / "run", *sets, cwd=tmp_path
    )
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["verified"]["metric"] == pytest.approx(summary["final"])
    assert "not usable" in call(python.with_name("detprune"), "list", cwd=tmp_path)  # Ultralytics
