"""Studies: all cells from one dense network per seed, none run twice, one that fails stops no other."""

import copy
import json
import shlex
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from command_line import Call, detprune
from detprune import InputError
from detprune.files.processes import HOST
from detprune.run.adapter import load_recipe
from detprune.run.recipe import Recipe, assignments, override, read_assignments
from detprune.run.report.run_files import read_run
from detprune.run.studies.study.figures import metric_track
from detprune.run.studies.study.spec import Study
from detprune.run.studies.study.study_runs import plan_study, run_study

STUDY: dict[str, Any] = {
    "name": "tiny_study",
    "recipe": "recipe.yaml",
    "settings": {"stages.retrain.epochs": 1},
    "methods": {
        "magnitude": {"method": "magnitude"},
        "runaway": {"method": {"name": "admm", "rho": 1e30}},
    },
    "rates": [4],
    "seeds": [0, 1],
    "published": {"source": "a paper", "values": {"magnitude": {4: [91.5, None]}}},
}


def write(folder: Path, recipe: dict[str, Any], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**copy.deepcopy(STUDY), **changes}), encoding="utf-8")
    return file


@pytest.mark.slow
def test_a_study(tiny: dict[str, Any], tmp_path: Path, call: Call) -> None:
    study = partial(call, "study")
    file, out = write(tmp_path, tiny), tmp_path / "out"
    first = study(file, "--out", out, "--jobs", 2, code=1)
    assert first.stdout.count(": runs, see") == 6  # 2 dense and 4 cells
    said = " ".join(first.stdout.split())  # the terminal breaks lines
    assert said.count(": failed with exit code 1: error: ") == 2
    assert said.count("not finite") == 2
    for seed in (0, 1):
        cell = yaml.safe_load((out / f"magnitude_4x_{seed}" / "recipe.yaml").read_text())
        assert cell["model"]["weights"] == str(out / f"dense_{seed}" / "checkpoints" / "dense.pt")
        assert cell["stages"]["dense"] is None
        assert cell["seed"] == seed
        assert "not finite" in (out / f"runaway_4x_{seed}.log").read_text()

    cells = {
        (c["method"], c["seed"]): c for c in json.loads((out / "results.json").read_text())["cells"]
    }
    summaries = [json.loads((out / f"magnitude_4x_{s}/summary.json").read_text()) for s in (0, 1)]
    assert [cells["magnitude", s]["final"] for s in (0, 1)] == [s["final"] for s in summaries]
    assert cells["runaway", 0]["final"] is None
    values = [100 * s["hard_pruned"] for s in summaries]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    table = (out / "table.md").read_text()
    assert "| rate | magnitude hard-pruned | runaway hard-pruned | magnitude final |" in table
    assert f"| 4× | {mean:.2f} ± {deviation:.2f} | – | " in table
    assert "Published: a paper" in table
    assert "| 4× | 91.50 | – |" in table
    assert "2 of 4 runs finished" in table
    assert "| [magnitude](magnitude_4x_1/report.html) | 4× | 1 |" in table
    assert "| runaway | 4× | 1 |" in table  # it has no report
    page = (out / "report.html").read_text()
    assert '<td><a href="magnitude_4x_1/report.html">magnitude</a></td>' in page
    assert page.count("<img ") == 3
    for figure in ("rates", "convergence", "weights"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000
    run = read_run(out / "magnitude_4x_0")
    assert metric_track(run) == [
        *((check.epoch, check.metric) for check in run.checks if check.epoch < 3),
        (3, summaries[0]["hard_pruned"]),
        (4, summaries[0]["final"]),
    ]
    assert [epoch for epoch, _ in metric_track(run)] == [2, 3, 4]
    assert f"{mean:.2f} ± {deviation:.2f}" in page
    assert "data:image/png;base64," in page

    again = study(file, "--out", out, code=1)
    assert again.stdout.count(": runs, see") == 2  # the two that failed

    words = shlex.split(cells["magnitude", 1]["command"])
    assert words[:2] == ["detprune", "run"]
    call(*words[1:], "--out", tmp_path / "alone")
    repeated = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert repeated["final"] == summaries[1]["final"]

    changed = write(tmp_path, tiny, settings={"stages.retrain.epochs": 2})
    assert (
        "magnitude_4x_0 holds a run of another recipe"
        in study(changed, "--out", out, code=2).stderr
    )


@pytest.mark.slow
def test_only_some_of_its_runs(tiny: dict[str, Any], tmp_path: Path, call: Call) -> None:
    file, out = write(tmp_path, tiny), tmp_path / "out"
    arguments = ("study", file, "--out", out, "--only", "magnitude_*_1")
    done = detprune(*arguments, preloaded=None)  # and so are its runs
    assert done.stdout.count(": runs, see") == 2  # the dense network of seed 1, and the cell
    assert "1 of 4 runs finished" in (out / "table.md").read_text()
    assert "cifar_resnet20 at 4×, seed 1: weights of" in (out / "report.html").read_text()

    cell = out / "magnitude_4x_1"
    (cell / "report.html").unlink()
    dead = {"pid": 2**22 + 1, "host": HOST, "started": None}  # above the largest process number
    (cell / ".lock").write_text(
        json.dumps(dead), encoding="utf-8"
    )  # killed while it drew the report
    assert call(*arguments).stdout.count(": runs, see") == 1
    assert (cell / "report.html").is_file()
    assert not (cell / ".lock").exists()
    assert "](magnitude_4x_1/report.html)" in (out / "table.md").read_text()

    refused = call("study", file, "--out", out, "--only", "magnitud_4x_1", code=2)
    assert "which no run matches; the runs are: magnitude_4x_0, " in refused.stderr


def test_budgets_of_epochs_that_differ_are_refused(
    tiny: dict[str, Any], tmp_path: Path, call: Call
) -> None:
    methods = {
        "long": {"method": "magnitude", "stages.constrained.epochs": 9},
        "short": {"method": "magnitude"},
    }
    file = write(tmp_path, tiny, methods=methods)
    process = call("study", file, "--out", tmp_path / "out", code=2)
    assert "4 in short_4x_0, short_4x_1; 10 in long_4x_0, long_4x_1" in process.stderr
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_is_wrong_is_named_before_anything_runs(
    tiny: dict[str, Any], tmp_path: Path, call: Call
) -> None:
    methods = {"good": {"method": "magnitude"}, "bad": {"method": "magnitud"}}
    file = write(tmp_path, tiny, methods=methods)
    process = call("study", file, "--out", tmp_path / "out", code=2)
    assert "bad_4x_0" in process.stderr
    assert "magnitude" in process.stderr
    assert not (tmp_path / "out").exists()


def test_models_have_rows_and_folders_of_their_own(tiny: dict[str, Any], tmp_path: Path) -> None:
    models = {"r20": {"model.name": "cifar_resnet20"}, "r32": {"model.name": "cifar_resnet32"}}
    spec = Study.read(write(tmp_path, tiny, models=models))
    assert [b.folder for b in spec.baselines] == [
        "r20_dense_0",
        "r20_dense_1",
        "r32_dense_0",
        "r32_dense_1",
    ]
    assert len(spec.cells) == 8
    own = Study.read(write(tmp_path, tiny, models=models, own_rates={"r20": [2, 3]}))
    assert [(c.baseline.model, c.rate) for c in own.cells if c.baseline.seed == 0][::2] == [
        ("r20", 2),
        ("r20", 3),
        ("r32", 4),
    ]
    models["r32"]["stages.constrained.epochs"] = 9  # other epochs for all methods of a model
    spec = Study.read(write(tmp_path, tiny, models=models))
    plan_study(spec, tmp_path, [])
    assert spec.cells[0].folder == "r20_magnitude_4x_0"
    assert models["r32"] in spec.settings_of(spec.baselines[2])


def test_rates_as_shares_of_macs(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = {**tiny, "set": "coupled_channels", "budget": {"macs": 0.5}}
    file = write(tmp_path, tiny, target="macs", rates=[0.3, 0.5])
    spec = Study.read(file)
    assert spec.label_of(0.3) == "0.3 of the MACs"
    assert spec.sorted_rates("") == [0.5, 0.3]
    _, cells = plan_study(spec, tmp_path / "out", [])
    assert {(c.folder, plan.recipe.budget.macs) for c, plan in cells.items()} >= {
        (f"magnitude_0.3_macs_{spec.seeds[0]}", 0.3)
    }


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"methods": {"slr": {"stages.retrain.epochs": 1}}}, "methods.slr sets no method"),
        ({"rates": [0.5]}, "rates: 0.5 is no compression, allowed is 1 or more"),
        ({"rates": [0.0]}, r"rates\.0: Input should be greater than 0"),
        ({"target": "macs", "rates": [2]}, "rates: 2 is no macs, allowed is above 0 and below 1"),
        ({"target": "mac", "rates": [0.5]}, "target: Input should be 'compression', 'macs'"),
        ({"rates": []}, "there is no rate; write rates"),
        ({"rates": 4}, r"rates is 4, but must be a list, as in \[4\]"),
        ({"seeds": 3}, r"seeds is 3, but must be a list, as in \[3\]"),
        ({"seed": [0]}, "unknown key seed.* seeds"),
        ({"own_rates": {"a": [2]}}, "own_rates are given for a, but the models are: "),
        ({"models": {"a": {}}, "rates": []}, "no rate for a; write rates"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"name": ".."}, "names no folder of its own"),
    ],
)
def test_a_study_that_is_wrong(
    tiny: dict[str, Any], tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        Study.read(write(tmp_path, tiny, **changes))


def test_a_dense_network_does_not_depend_on_what_comes_later(tiny: dict[str, Any]) -> None:
    later = {"distillation": {"weight": 0.5}, "batch_norm_images": 9, "method": "dpf"}
    assert Recipe.dense_part({**tiny, **later}) == Recipe.dense_part(tiny)
    assert Recipe.dense_part({**tiny, "seed": 4}) != Recipe.dense_part(tiny)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "run #2",
            "a,b",
            "a: b",
            "{x}",
            "[1",
            "'",
            '"',
            " lead",
            "trail ",
            "1",
            "true",
            "null",
            "~",
        ),
        *(
            "- x",
            "*a",
            "&a",
            "!t",
            "%",
            "@",
            "`",
            "a\\nb",
            "a\nb",
            "\t",
            "½ ü",
            "...",
            "---",
            "=",
            "",
        ),
        *("1e-3", "0x10", "1_000", "2026-11-27", "yes", "C:\\x", "a #b, {c: d}/dense.pt", "😀"),
        *(1e-05, 1e30, 0.1, 10**20, -0.0, None, True, [], {}, ["x", "1"], {"a": "#"}),
        {"name": "slr", "rho": {"pull": {"start": 0.3, "end": 6}}},
        "x" * 5000 + " y" * 500,
    ],
)
def test_settings_survive_the_command_line(value: Any) -> None:
    assert override({}, assignments({"a.b": value, "c": value})) == {"a": {"b": value}, "c": value}


@pytest.mark.parametrize("folder", ["run #2", "a,b", "{x: y}", "it's", "a: b", "null"])
def test_paths_of_other_runs_travel_unchanged(
    tiny: dict[str, Any], tmp_path: Path, folder: str
) -> None:
    tiny["distillation"] = {"weight": 0.5}
    spec = Study.read(write(tmp_path / folder, tiny))
    _, cells = plan_study(spec, tmp_path / folder, [])
    for cell, plan in cells.items():
        dense = tmp_path / folder / cell.baseline.folder / "checkpoints" / "dense.pt"
        words = shlex.split(plan.command)
        texts = [word for flag, word in pairwise(words) if flag == "--set"]
        _, again = load_recipe(plan.recipe_file, read_assignments(texts))
        assert again == plan.recipe
        assert again.model_dump(mode="json")["model"]["weights"] == str(dense)
    recipe = next(iter(cells.values())).recipe
    settings = recipe.taught_by_dense(tmp_path / folder)
    assert settings == {"distillation.teacher": str(tmp_path / folder / "checkpoints" / "dense.pt")}


def test_rates_that_print_alike_have_folders_of_their_own(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    spec = Study.read(write(tmp_path, tiny, rates=[2, 2.0000001, 2.5, 1234567], seeds=[0]))
    folders = [cell.folder for cell in spec.cells if cell.method == "magnitude"]
    assert folders == [
        *("magnitude_2x_0", "magnitude_2.0000001x_0", "magnitude_2.5x_0", "magnitude_1234567.0x_0")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"rates": [2, 2.0]},
        {"seeds": [1, 1]},
        {"methods": {"m": {"method": "slr"}, "M": {"method": "admm"}}},
        {
            "models": {"a": {}, "a_b": {}},
            "methods": {"b_c": {"method": "slr"}, "c": {"method": "slr"}},
        },
    ],
)
def test_two_runs_never_share_a_folder(
    tiny: dict[str, Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="several runs would have the same folder: "):
        Study.read(write(tmp_path, tiny, **changes))


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ({}, ["seed=5"], "--set sets seed to 5, but seeds of the file"),
        ({}, ["budget.compression=9"], "--set sets budget.compression to 9, but rates of the file"),
        ({"settings": {"seed": 5}}, [], "settings sets seed to 5"),
        ({"models": {"a": {"seed": 5}}}, [], "models.a sets seed to 5"),
        ({"methods": {"a": {"method": "slr", "seed": 5}}}, [], "methods.a sets seed to 5"),
        ({}, ["method.rho=0.1"], "--set method.rho has no effect, because each of the methods"),
    ],
)
def test_settings_that_no_run_would_feel(
    tiny: dict[str, Any], tmp_path: Path, file: dict[str, Any], changes: list[str], problem: str
) -> None:
    spec = Study.read(write(tmp_path, tiny, **file))
    with pytest.raises(InputError, match=problem):
        plan_study(spec, tmp_path / "out", read_assignments(changes))


def test_settings_that_some_runs_feel(tiny: dict[str, Any], tmp_path: Path) -> None:
    methods = {"a": {"method": "magnitude"}, "b": {"method": "slr", "budget.allocation": "erk"}}
    spec = Study.read(write(tmp_path, tiny, methods=methods))
    _, cells = plan_study(spec, tmp_path / "out", [{"budget.allocation": "uniform"}])
    assert {(c.method, p.recipe.budget.allocation) for c, p in cells.items()} == {
        ("a", "uniform"),
        ("b", "erk"),
    }


def test_names_too_long_for_a_folder_are_found_before_anything_runs(
    tiny: dict[str, Any], tmp_path: Path, call: Call
) -> None:
    file = write(tmp_path, tiny, methods={"\u6f22" * 84: {"method": "one_shot"}})
    process = call("study", file, "--out", tmp_path / "new" / "out", code=2)
    assert "cannot be the name of a run: File name too long" in process.stderr
    assert not (tmp_path / "new").exists()


def test_a_teacher_of_one_method_that_is_not_there_is_found_before_the_dense_networks(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    taught = {"method": "slr", "distillation": {"weight": 0.5, "teacher": "gone.pt"}}
    file = write(tmp_path, tiny, methods={"slr": {"method": "slr"}, "taught": taught})
    problem = r"taught_.*: distillation\.teacher is gone\.pt, but there"
    with pytest.raises(InputError, match=problem):
        run_study(file, tmp_path / "out", [], jobs=1)
    assert not (tmp_path / "out").exists()
