"""The command line, run as a user runs it: a process, its exit code, its output, its files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import detprune, detprune_here, kill_after
from detprune.errors import DetpruneError
from detprune.run.directory import RunDirectory

pytestmark = pytest.mark.slow


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return weights


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of the tiny recipe."""
    from tiny_recipe import TINY

    folder = tmp_path_factory.mktemp("finished")
    recipe = folder / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    done = detprune("run", recipe, "--out", folder / "run", preloaded=None)
    assert "report:" in done.stdout
    return folder / "run"


def test_a_run_leaves_everything_behind(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    for key in (
        *("task", "model", "data", "method", "set", "metric", "dense", "hard_pruned", "final"),
        *(
            "compression",
            "sparsity",
            "model_compression",
            "layers",
            "epochs",
            "seconds",
            "seed",
            "versions",
        ),
    ):
        assert summary[key] is not None, key
    assert summary["compression"] == pytest.approx(10, abs=0.01)
    assert summary["verified"]["metric"] == pytest.approx(summary["final"])
    events = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    kinds = [event["event"] for event in events]
    assert (kinds.count("epoch"), kinds.count("outer"), kinds.count("stage")) == (9, 6, 3)
    assert [e["epoch"] for e in events if e["event"] == "hard_prune_check"] == [2]
    for file in ("recipe.yaml", "run.log", "report.html", "pruned.pt", "checkpoints/dense.pt"):
        assert (finished / file).stat().st_size > 100, file
    assert list((finished / "figures").glob("*.png"))
    assert list((finished / "tensorboard").rglob("events.*"))


def test_the_pruned_file_is_plain_and_as_sparse_as_the_summary_says(finished: Path) -> None:
    from detprune_classification.models import build_model

    weights = state_dict(finished / "pruned.pt")
    build_model("cifar_resnet20", 10, in_channels=1).load_state_dict(weights)
    summary = json.loads((finished / "summary.json").read_text())
    for layer in summary["layers"]:
        nonzero = int(torch.count_nonzero(weights[layer["name"]]))
        assert nonzero == layer["nonzero"]
        if layer["pruned"]:
            assert nonzero <= round(layer["numel"] / 10)
    hard = state_dict(finished / "checkpoints" / "hard_pruned.pt")
    assert not torch.equal(hard["linear.weight"], weights["linear.weight"])
    assert torch.equal(hard["linear.weight"] == 0, weights["linear.weight"] == 0)


def test_evaluate_prints_json_that_agrees(finished: Path) -> None:
    done = detprune(
        *("evaluate", "classification", finished / "recipe.yaml"),
        "--checkpoint",
        finished / "pruned.pt",
    )
    result = json.loads(done.stdout)
    summary = json.loads((finished / "summary.json").read_text())
    assert result["value"] == pytest.approx(summary["final"])
    assert result["model_compression"] == pytest.approx(summary["model_compression"])


def test_report_can_be_drawn_again(finished: Path) -> None:
    (finished / "report.html").unlink()
    assert detprune("report", finished).stdout.strip() == str(finished / "report.html")
    assert "cifar_resnet20" in (finished / "report.html").read_text()


def test_killed_in_every_stage_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path
) -> None:
    recipe, run = finished.parent / "tiny.yaml", tmp_path / "run"
    arguments = ("run", recipe, "--out", run, "--resume")
    kill_after(arguments, run, (("dense", 2), ("constrained", 1), ("constrained", 3)))
    kill_after(arguments, run, [("retrain", 2)], preloaded=None)
    detprune(*arguments, preloaded=None)
    expected, found = state_dict(finished / "pruned.pt"), state_dict(run / "pruned.pt")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    strip = ("seconds",)
    events = [
        [{k: v for k, v in e.items() if k not in strip} for e in RunDirectory(path).events()]
        for path in (finished, run)
    ]
    assert events[0] == events[1]


def test_a_run_continues_in_its_own_folder_alone(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    resume = ("run", finished, "--resume", "--out")
    assert detprune_here(*resume, tmp_path / "other", monkeypatch=monkeypatch) == 2
    assert "a run continues in its own folder; leave --out out" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "other").exists()
    written_otherwise = finished.parent / "x" / ".." / finished.name
    assert detprune_here(*resume, written_otherwise, monkeypatch=monkeypatch) == 0


def test_killed_between_the_last_epoch_and_the_mark_of_its_stage(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    marks = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps({"dense": marks["dense"]}))
    for file in (
        "pruned.pt",
        "summary.json",
        "checkpoints/hard_pruned.pt",
        "checkpoints/pruner.pt",
    ):
        (run / file).unlink()
    assert detprune_here("run", run, "--resume", monkeypatch=monkeypatch) == 0
    expected, found = state_dict(finished / "pruned.pt"), state_dict(run / "pruned.pt")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "none.yaml"], "cannot read none.yaml"),
        (["run", "{recipe}", "--set", "model.nam=x"], "did you mean 'name'"),
        (["run", "{recipe}", "--set", "task=clasification"], "did you mean 'classification'"),
        (["run", "{recipe}", "--set", "budget.exclude=[convv*]"], "matches no weight"),
        (
            ["run", "{recipe}", "--set", "set=n_m", "--set", "budget={include: [conv1]}"],
            "no multiple of 4",
        ),
        (["run", "{recipe}", "--set", "data={name: cifar10, root: nowhere}"], "nowhere"),
        (["run", "{recipe}", "--set", "model.weights=none.pt"], "none.pt"),
        (["report", "nowhere"], "nowhere"),
        (["run", "{recipe}", "--resume", "--overwrite"], "exclude each other"),
    ],
)
def test_bad_input_exits_with_2_and_says_why(
    tiny_file: Path,
    arguments: list[str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [a.replace("{recipe}", str(tiny_file)) for a in arguments]
    if filled[0] == "run":
        filled += ["--out", str(tiny_file.parent / "run")]
    assert detprune_here(*filled, monkeypatch=monkeypatch) == 2
    assert text in capsys.readouterr().err


def test_divergence_exits_with_1(
    tiny_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tiny_file.parent / "run"
    code = detprune_here(
        *("run", tiny_file, "--out", out, "--set", "stages.dense.epochs=0"),
        *("--set", "stages.constrained.optimizer.lr=1e18", "--set", "method.rho=0.1"),
        monkeypatch=monkeypatch,
    )
    assert code == 1
    assert "training has diverged" in capsys.readouterr().err
    assert not (out / "summary.json").exists()


def test_a_run_is_neither_overwritten_nor_mixed_up(
    finished: Path,
    tiny_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = finished.parent / "tiny.yaml"
    assert detprune_here("run", recipe, "--out", finished, monkeypatch=monkeypatch) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a run already; continue it with detprune run" in said
    assert "--resume, replace it with --overwrite" in said
    again = ("run", recipe, "--out", finished, "--resume", "--set", "seed=4")
    assert detprune_here(*again, monkeypatch=monkeypatch) == 2
    assert "not the recipe that is to be resumed" in capsys.readouterr().err
    stranger = tiny_file.parent / "stranger"
    stranger.mkdir()
    (stranger / "thesis.txt").write_text("all I have")
    assert (
        detprune_here("run", tiny_file, "--out", stranger, "--overwrite", monkeypatch=monkeypatch)
        == 2
    )
    assert (stranger / "thesis.txt").exists()


def test_list_names_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detprune_here("list", monkeypatch=monkeypatch) == 0
    listing = capsys.readouterr().out
    for name in (
        "slr",
        "sas_admm",
        "n_m",
        "pattern",
        "classification",
        "cifar_resnet110",
        "digits",
    ):
        assert name in listing


def test_list_says_how_to_install_what_an_adapter_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith("detprune_classification")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setenv("COLUMNS", "200")
    assert detprune_here("list", monkeypatch=monkeypatch) == 0
    listing = " ".join(capsys.readouterr().out.split())
    assert "pip install 'detprune[classification]'" in listing


@pytest.mark.parametrize(
    ("arguments", "slow"),
    [
        (["--help"], {"torch", "numpy", "pydantic", "matplotlib"}),
        (["list"], {"lightning", "torchvision", "matplotlib", "ultralytics", "torch._dynamo"}),
    ],
    ids=["help", "list"],
)
def test_commands_that_only_tell_import_nothing_slow(arguments: list[str], slow: set[str]) -> None:
    code = (
        f"import sys; sys.argv = ['detprune', *{arguments}]\n"
        "from detprune.run.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code\n"
        f"imported = {slow} & set(sys.modules)\nassert not imported, imported"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_an_exchanged_network_is_told(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    for told in (False, True):
        code = detprune_here("export", run, "--out", run / f"{told}.onnx", monkeypatch=monkeypatch)
        assert (code, "numbers of the run are not" in caplog.text) == (0, told)
        weights = state_dict(run / "pruned.pt")
        torch.save({name: value * 1.5 for name, value in weights.items()}, run / "pruned.pt")


@pytest.mark.parametrize("arguments", [("report",), ("measure",), ("export",), ("run", "--resume")])
def test_a_folder_of_several_runs_is_no_run(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("dense", "slr_2x"):
        (tmp_path / "study" / name).mkdir(parents=True)
        (tmp_path / "study" / name / "recipe.yaml").write_text("task: classification\n")
    code = detprune_here(*arguments, tmp_path / "study", monkeypatch=monkeypatch)
    answer = capsys.readouterr().err
    assert code == 2
    assert f"holds 2 of them; give one, such as {tmp_path / 'study' / 'dense'}" in answer


def test_saved_file_that_does_not_prove_is_an_error(tiny: dict[str, Any], tmp_path: Path) -> None:
    from detprune.run import pipeline
    from detprune.run.recipe import validate
    from detprune_classification import ClassificationRecipe, ClassificationTask

    tiny["stages"] = {stage: {"epochs": 0} for stage in ("dense", "constrained", "retrain")}
    recipe = validate(ClassificationRecipe, tiny)
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    task = ClassificationTask(recipe, run)
    values = iter([0.5, 0.4, 0.4, 0.3])
    task.evaluate = lambda model: {"accuracy": next(values)}  # type: ignore[method-assign]
    with pytest.raises(pipeline.VerificationError, match=r"loaded back, accuracy is 0\.3"):
        pipeline.run_stages(task, recipe, run, "test")
    assert not (run.path / "summary.json").exists()


def test_bad_input_leaves_nothing_and_brings_back_what_was_to_be_replaced(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = finished.parent / "tiny.yaml", tmp_path / "run"
    bad = ("--set", "model.weights=none.pt")
    assert detprune_here("run", recipe, "--out", run, *bad, monkeypatch=monkeypatch) == 2
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(finished, run)
    arguments = ("run", recipe, "--out", run, "--overwrite", *bad)
    assert detprune_here(*arguments, monkeypatch=monkeypatch) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (run / "pruned.pt").read_bytes() == (finished / "pruned.pt").read_bytes()


def test_a_failure_says_where_the_run_is_kept_that_was_to_be_replaced(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def diverge(*_: object) -> None:
        raise DetpruneError("training diverged")

    run = tmp_path / "run"
    shutil.copytree(finished, run)
    monkeypatch.setattr("detprune.run.cli.run._run", diverge)
    arguments = ("run", finished.parent / "tiny.yaml", "--out", run, "--overwrite")
    assert detprune_here(*arguments, monkeypatch=monkeypatch) == 1
    assert "the run that was to be replaced is kept in" in " ".join(capsys.readouterr().out.split())
    kept = (tmp_path / ".run.replaced" / "pruned.pt").read_bytes()
    assert kept == (finished / "pruned.pt").read_bytes()
