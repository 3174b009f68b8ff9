"""Damaged files of a run: every command names the file, says what to delete, and leaves with 2."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tiny_recipe import TINY

from damaged import damage, in_constrained_training, run_here, said
from detprune.errors import InputError
from detprune.run.directory import RunDirectory

pytestmark = pytest.mark.slow

DAMAGES = ("truncated", "empty", "garbage", "other type", "folder")
RESUMED = (
    "recipe.yaml",
    "progress.json",
    "checkpoints/dense.pt",
    "checkpoints/hard_pruned.pt",
    "checkpoints/final.pt",
    "checkpoints/pruner.pt",
    "pruned.pt",
)
REPORTED = ("summary.json", "checkpoints/dense.pt", "checkpoints/final.pt")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    short = {stage: {**spec, "epochs": 1} for stage, spec in TINY["stages"].items()}
    short["constrained"]["warmup"] = 0.2  # so that its checkpoint holds a schedule
    run = run_here({**TINY, "stages": short}, folder)
    shutil.rmtree(run / "tensorboard")
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def resumed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, str]]:
    """Resume that copy; returns exit code and what was said."""
    return lambda: said(["run", str(run), "--resume"], monkeypatch, capsys)


@pytest.fixture
def halfway(run: Path) -> Path:
    """A copy of a run that was cut off after the first of two epochs of constrained training."""
    in_constrained_training(run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    recipe["stages"]["constrained"]["epochs"] = 2
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return run


CASES = [
    *(("resume", name, how) for name in RESUMED for how in DAMAGES),
    # by the readers that a resumed run has, so that two kinds show that they are used
    *(("report", name, how) for name in REPORTED for how in ("truncated", "other type")),
]


@pytest.mark.parametrize(("command", "name", "how"), CASES)
def test_a_damaged_file_is_named_with_the_way_out(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    name: str,
    how: str,
) -> None:
    damage(run / name, how)
    arguments = ["run", str(run), "--resume"] if command == "resume" else ["report", str(run)]
    code, error = said(arguments, monkeypatch, capsys)
    assert code == 2
    assert str(run / name) in error
    assert "weights_only" not in error
    if name == "recipe.yaml":
        assert "copy the recipe that the run began with over it" in " ".join(error.split())
    else:
        assert "delete" in error or "move it away" in error


def test_a_way_out_is_said_once(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(InputError) as caught, run.own_file():
        raise InputError(f"dense.pt is a folder; {run.way_out}")
    assert str(caught.value).count(run.way_out) == 1
    with pytest.raises(InputError) as caught, run.own_file():
        raise InputError("dense.pt is damaged")
    assert str(caught.value).count(run.way_out) == 1


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_of_a_stage(
    run: Path,
    resumed: Callable[[], tuple[int, str]],
    how: str,
) -> None:
    damage(in_constrained_training(run) / "checkpoints/constrained/last.ckpt", how)
    code, error = resumed()
    assert code == 2
    assert "last.ckpt" in error
    assert f"delete {run / 'checkpoints/constrained'} and resume" in error


def test_a_recipe_that_was_cut_off_between_two_lines(
    run: Path,
    resumed: Callable[[], tuple[int, str]],
) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().partition("stages:")[0])
    code, error = resumed()
    assert code == 2
    assert f"{recipe} is not valid:" in error
    assert "stages is missing" in error
    assert "copy the recipe that the run began with over it" in " ".join(error.split())


@pytest.mark.parametrize("name", ["hard_pruned", "final"])
def test_a_checkpoint_of_another_network_is_refused(
    run: Path,
    resumed: Callable[[], tuple[int, str]],
    name: str,
) -> None:
    file = run / "checkpoints" / f"{name}.pt"
    weights = torch.load(file)
    torch.save({key: value.flip(0) for key, value in weights.items()}, file)
    code, error = resumed()
    assert code == 2
    assert f"{file} is not of the network that this run pruned" in error
    assert f"delete {run / 'progress.json'} and continue" in error


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("callbacks/ConstrainedTraining", None, "lacks the state of ConstrainedTraining"),
        ("callbacks/ConstrainedTraining", {}, "lacks the state of ConstrainedTraining"),
        ("callbacks/ConstrainedTraining/history", None, "the saved pruner state lacks history"),
        ("callbacks/EventLog", None, "lacks the state of EventLog"),
        ("callbacks/EventLog/epoch", "one", "says epoch 'one'"),
        ("callbacks/EventLog/epoch", 7, "lacks epoch 7 in its loops, which stand at 1"),
        ("callbacks/HardPruningCheck", None, "lacks the state of HardPruningCheck"),
        ("callbacks/HardPruningCheck/stopped", "no", "stopped: 'no'"),
        ("optimizer_states", [], "lacks the optimizer's momentum"),
        ("lr_schedulers", [], "lacks where the learning-rate schedule stands"),
        ("loops/fit_loop", {}, "lacks epoch 1 in its loops, which stand at 0"),
        ("state_dict/conv1.weight", torch.zeros(16, 3, 3, 3).half(), "is of another network"),
    ],
)
def test_a_part_that_was_cut_out_of_a_checkpoint_is_not_begun_anew(
    halfway: Path,
    resumed: Callable[[], tuple[int, str]],
    path: str,
    value: object,
    problem: str,
) -> None:
    file = halfway / "checkpoints/constrained/last.ckpt"
    content = torch.load(file, weights_only=True)
    *parents, last = path.split("/")
    parent = content
    for key in parents:
        parent = parent[key]
    if value is None:
        del parent[last]
    else:
        parent[last] = value
    torch.save(content, file)
    code, error = resumed()
    assert code == 2
    assert problem in error
    assert "last.ckpt" in error
    assert "delete" in error


@pytest.mark.parametrize("name", ["dense", "final"])
def test_a_stage_that_was_damaged_by_nan_is_not_taken_up(
    run: Path,
    resumed: Callable[[], tuple[int, str]],
    name: str,
) -> None:
    file = run / "checkpoints" / f"{name}.pt"
    state = torch.load(file, weights_only=True)
    state["bn1.running_var"][0] = float("nan")
    torch.save(state, file)
    (run / "summary.json").unlink()
    code, error = resumed()
    assert code == 1
    assert f"after the stage {name} holds NaN or infinite values in bn1.running_var" in error
    assert not (run / "summary.json").exists()


@pytest.mark.parametrize("stage", ["dense", "retrain"])
def test_a_stage_that_diverges_ends_the_run_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    short = {name: {**spec, "epochs": 0} for name, spec in TINY["stages"].items()}
    short[stage] = {"epochs": 1, "optimizer": {"lr": 1e30}}
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump({**TINY, "stages": short}), encoding="utf-8")
    out = tmp_path / "run"
    code, error = said(["run", str(recipe), "--out", str(out)], monkeypatch, capsys)
    assert code == 1
    assert f"the network after the stage {stage} holds NaN" in error
    assert not (out / "summary.json").exists()


def test_weights_with_nan_are_bad_input(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = torch.load(finished / "checkpoints/dense.pt", weights_only=True)
    state["conv1.weight"][0] = float("inf")
    torch.save(state, tmp_path / "nan.pt")
    weights = f"model.weights={tmp_path / 'nan.pt'}"
    recipe = str(finished.parent / "tiny.yaml")
    arguments = ["run", recipe, "--out", str(tmp_path / "run"), "--set", weights]
    code, error = said(arguments, monkeypatch, capsys)
    assert code == 2
    assert "conv1.weight" in error


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("trainer.precision=7", "precision"),
        ("trainer.precision='8-bit'", "precision is '8-bit'; allowed are 32-true"),
        ("trainer.accelerator=abacus", "Lightning refuses trainer"),
        ("trainer.strategy=none", "Lightning refuses trainer"),
        ("trainer.strategy=ddp_spawn", "trainer.strategy is 'ddp_spawn': the strategy trains in"),
        ("trainer.strategy=ddp_fork_find_unused_parameters_true", "started for the fit alone"),
        ("trainer={accelerator: cpu, devices: 1000}", "on a CPU is that many processes"),
        ("trainer.devices=0", "Lightning refuses trainer"),
        ("seed=18446744073709551616", "seed"),
        ("stages.retrain.warmup=.inf", "no finite number"),
        ("stages.retrain.epochs=-1", "stages.retrain.epochs"),
        ("stages.retrain.epochs=true", "true is no number"),
        ("stages.dense.optimizer.lr=.nan", "no finite number"),
        ("budget.compression=yes", "compression: true is no number"),
        ("data.image_size=99999999", "image_size"),
        ("data.batch_size=1e30", "batch_size"),
        ("stages.dense.optimizer.lr=1.0e+308", "1e+308 is out of range"),
        ("method.rho=1.0e-308", "rho is 1e-308, which is out of range"),
        ("method.step_size=1.0e+308", "step_size is 1e+308, which is out of range"),
        ("trainer.accumulate_grad_batches=10000000000000000000000", "out of range"),
        ("trainer.devices=9223372036854775808", "out of range"),
    ],
)
def test_values_that_no_framework_takes(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    text: str,
) -> None:
    recipe = str(finished.parent / "tiny.yaml")
    arguments = ["run", recipe, "--out", str(tmp_path / "run"), "--set", setting]
    code, error = said(arguments, monkeypatch, capsys)
    assert code == 2
    assert text in error
    assert not (tmp_path / "run").exists()
