"""Progressive pruning: who is pruned from whom, and that nothing is run twice."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import Call
from detprune import InputError
from detprune.run.recipe import validate
from detprune.run.studies.progressive.spec import Progressive
from detprune_classification.recipe import ClassificationRecipe


def write(folder: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    file = folder / "steps.yaml"
    spec = {"name": "steps", "recipe": "recipe.yaml", "rates": [2, 4, 8], "pool": 2, **changes}
    file.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return file


@pytest.fixture
def progressive(call: Call) -> Call:
    return partial(call, "progressive")


@pytest.fixture
def short(tiny: dict[str, Any]) -> dict[str, Any]:
    tiny["stages"]["constrained"]["epochs"] = tiny["stages"]["retrain"]["epochs"] = 1
    return tiny


@pytest.mark.slow
def test_steps(short: dict[str, Any], tmp_path: Path, progressive: Call) -> None:
    file, out = write(tmp_path, short), tmp_path / "out"
    # a folder stands where a run of the second rate would be, so that the way goes on without it
    (out / "4x_from_2x").mkdir(parents=True)
    (out / "4x_from_2x" / "in_the_way").touch()
    first = progressive(file, "--out", out, "--jobs", 2)
    assert "4x_from_2x: failed with exit code 2" in first.stdout
    found = json.loads((out / "results.json").read_text())["networks"]
    # the pool is [dense], then [dense, 2x]; the best 4x child is dense's, so 4x takes its place
    assert [n["folder"] for n in found[:3]] == ["dense", "2x_from_dense", "4x_from_dense"]
    assert {n["folder"] for n in found[3:]} == {"8x_from_4x", "8x_from_2x"}
    last = {n["folder"]: n for n in found[3:]}
    better = max(n["final"] for n in last.values())
    assert [n["final"] for n in last.values() if n["best"]] == [better]

    recipe = yaml.safe_load((out / "8x_from_4x" / "recipe.yaml").read_text())
    assert recipe["model"]["weights"] == str(out / "4x_from_dense" / "checkpoints" / "final.pt")
    assert recipe["stages"]["dense"] is None
    for name in ("2x_from_dense", "8x_from_4x"):
        summary = json.loads((out / name / "summary.json").read_text())
        entry = next(n for n in found if n["folder"] == name)
        assert (entry["final"], entry["compression"]) == (summary["final"], summary["compression"])
    child = json.loads((out / "8x_from_4x" / "summary.json").read_text())
    parent = json.loads((out / "4x_from_dense" / "summary.json").read_text())
    assert child["dense"] == parent["final"]  # it begins where its parent ended
    assert child["compression"] == pytest.approx(8, rel=0.01)

    table = (out / "table.md").read_text()
    assert "| 4× | dense | " in table
    assert "the best network at 8× took 2 of them, 4 epochs, and all 4 steps" in table
    assert "data:image/png;base64," in (out / "report.html").read_text()

    (out / "4x_from_2x" / "in_the_way").unlink()
    for later in out.glob("8x_from_*x"):  # the best at 4x, from which they came, may be another now
        shutil.rmtree(later)
    again = progressive(file, "--out", out)
    assert "4x_from_2x: finished" in again.stdout
    assert "2x_from_dense: runs" not in again.stdout


@pytest.mark.slow
def test_the_dense_network_is_measured_before_anything_is_pruned(
    short: dict[str, Any], tmp_path: Path, progressive: Call
) -> None:
    short["stages"]["dense"]["epochs"] = 10  # better than chance
    out = tmp_path / "out"
    progressive(write(tmp_path, short, rates=[4]), "--out", out)
    summary = json.loads((out / "dense" / "summary.json").read_text())
    assert summary["dense"] > summary["final"]  # its own run goes on to prune it in one shot
    dense = json.loads((out / "results.json").read_text())["networks"][0]
    expected = {"final": summary["dense"], "hard_pruned": None, "compression": 1.0}
    assert {key: dense[key] for key in expected} == expected
    row = f"| dense | – | – | {100 * summary['dense']:.2f} | – |"
    assert row in (out / "table.md").read_text()


@pytest.mark.slow
def test_the_dense_network_teaches_children_of_pruned_ones(
    short: dict[str, Any], tmp_path: Path, progressive: Call
) -> None:
    short["distillation"] = {"weight": 0.5}
    out = tmp_path / "out"
    progressive(write(tmp_path, short, rates=[2, 4]), "--out", out)
    taught = yaml.safe_load((out / "4x_from_2x" / "recipe.yaml").read_text())["distillation"]
    assert taught["teacher"] == str(out / "dense" / "checkpoints" / "dense.pt")
    first = yaml.safe_load((out / "2x_from_dense" / "recipe.yaml").read_text())["distillation"]
    assert first["teacher"] is None  # it is what the run begins with
    short["distillation"]["teacher"] = "theirs.pt"  # the recipe's own stays
    own = validate(ClassificationRecipe, short)
    assert own.taught_by_dense(out / "dense") == {}


@pytest.mark.slow
def test_a_first_step_that_diverges_ends_it(
    short: dict[str, Any], tmp_path: Path, progressive: Call
) -> None:
    file = write(tmp_path, short, settings={"method": {"name": "admm", "rho": 1e30}})
    process = progressive(file, "--out", tmp_path / "out", code=1)
    assert "no run reached 2x" in process.stdout
    assert "| dense | –" in process.stdout
    assert not list((tmp_path / "out").glob("4x*"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rates": [4, 2]}, "rates: 2 follows 4; give rising rates"),
        ({"rates": [1, 2]}, r"rates\.0: Input should be greater than 1"),
        ({"rates": []}, "rates: Tuple should have at least 1 item"),
        ({"pool": 0}, "pool: Input should be greater than or equal to 1"),
        ({"pools": 3}, "unknown key pools.* pool"),
    ],
)
def test_files_that_are_wrong(
    short: dict[str, Any], tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        Progressive.read(write(tmp_path, short, **changes))


def test_a_wrong_recipe_shows_before_anything_runs(
    short: dict[str, Any], tmp_path: Path, progressive: Call
) -> None:
    file = write(tmp_path, short)
    process = progressive(
        file, "--out", tmp_path / "out", "--set", "stages.retrain.epochs=-1", code=2
    )
    assert "stages.retrain.epochs" in process.stderr
    nothing = ("--set", "stages.retrain.epochs=0", "--set", "stages.constrained.epochs=0")
    process = progressive(file, "--out", tmp_path / "out", *nothing, code=2)
    assert "no step would train" in process.stderr
    process = progressive(file, "--out", tmp_path / "out", "--set", "budget.compression=9", code=2)
    assert "--set sets budget.compression to 9, but rates of the file" in process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["progressive", "study"])
@pytest.mark.parametrize("kind", ["run", "other results"])
def test_a_folder_of_something_else_is_not_written_into(
    short: dict[str, Any], tmp_path: Path, call: Call, command: str, kind: str
) -> None:
    file, out = write(tmp_path, short), tmp_path / "out"
    if command == "study":
        text = {"name": "s", "recipe": "recipe.yaml", "methods": {"m": {"method": "magnitude"}}}
        file.write_text(yaml.safe_dump({**text, "rates": [2], "seeds": [0]}), encoding="utf-8")
    (out / ("checkpoints" if kind == "run" else "other_0")).mkdir(parents=True)
    for name in ("report.html", "recipe.yaml") if kind == "run" else ("report.html", "table.md"):
        (out / name).write_text("mine")
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    said = " ".join(call(command, file, "--out", out, code=2).stderr.split())
    what = "is the folder of a run" if kind == "run" else "holds table.md, report.html of something"
    assert what in said
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert (out / "report.html").read_text() == "mine"


def test_a_teacher_that_is_not_there_is_found_before_the_dense_network(
    short: dict[str, Any], tmp_path: Path, progressive: Call
) -> None:
    file = write(tmp_path, short | {"distillation": {"weight": 0.5, "teacher": "gone.pt"}})
    ended = progressive(file, "--out", tmp_path / "out", code=2)
    assert "distillation.teacher is gone.pt, but there is no such file" in ended.stderr
    assert not (tmp_path / "out").exists()
