"""Runs that take whole channels out of a detector: stages, proof, kills, pruning what is left."""

import copy
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detection_recipe import TINY

from command_line import detprune_here, kill_after
from detprune.errors import InputError
from detprune.files import load_tensors
from detprune.run.directory import RunDirectory

# isort: split
import detprune
from detprune_yolo.channels import lacks_channels
from detprune_yolo.networks import build_network
from detprune_yolo.recipe import ModelSpec
from detprune_yolo.weights.checkpoints import load_model, read_masks

pytestmark = pytest.mark.slow

RecipeFile = Callable[[Path, dict[str, Any]], Path]

RECIPE = {
    **copy.deepcopy(TINY),
    "name": "channels",
    "method": {"name": "admm", "rho": "auto", "free_support": True, "ramp": 0.75},
    "set": {"name": "coupled_channels", "round_to": 4},
    "budget": {"macs": 0.5},
    "distillation": {"weight": 0.5},
    "stages": {
        "dense": {"epochs": 1, "train": {"lr0": 0.02}},
        "constrained": {
            "epochs": 2,
            "every": 1,
            "check_every": 2,
            "train": {"lr0": 0.01, "freeze": [0, 13]},
        },
        "retrain": {"epochs": 2, "train": {"lr0": 0.01}},
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe_file: RecipeFile) -> Path:
    folder = tmp_path_factory.mktemp("channels")
    recipe = recipe_file(folder, RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        assert detprune_here("run", recipe, "--out", folder / "run", monkeypatch=patch) == 0
    return folder / "run"


@pytest.mark.parametrize("pruned", ["coupled_channels", "unstructured"])
def test_without_retraining_the_saved_network_is_the_one_that_was_measured(
    pruned: str, tmp_path: Path, recipe_file: RecipeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = {"macs": 0.5} if pruned == "coupled_channels" else {"compression": 2}
    nothing = {stage: {"epochs": 0} for stage in ("dense", "constrained", "retrain")}
    chosen = RECIPE["set"] if pruned == "coupled_channels" else pruned
    changed = {"set": chosen, "budget": budget, "method": "oneshot", "stages": nothing}
    values = {**RECIPE, **changed, "measure": False}
    del values["distillation"]
    run = tmp_path / "run"
    assert (
        detprune_here("run", recipe_file(tmp_path, values), "--out", run, monkeypatch=monkeypatch)
        == 0
    )
    measured = load_tensors(run / "checkpoints" / "final.pt", "")
    saved = load_model(run / "pruned.pt").float().state_dict()
    assert saved.keys() == measured.keys()
    assert [name for name in saved if not torch.equal(saved[name], measured[name])] == []


def same_bits(one: Path, other: Path) -> bool:
    first, second = (load_model(run / "pruned.pt").state_dict() for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def events(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in e.items() if k != "seconds"} for e in RunDirectory(run).events()]


def test_a_run_removes_channels_and_proves_what_is_left(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    removal = summary["removal"]
    assert removal["difference"] < 1e-5
    assert 0.4 < removal["small"]["macs"] / removal["dense"]["macs"] <= 0.5
    assert summary["metrics"]["removed"] == pytest.approx(summary["metrics"]["hard_pruned"])
    assert summary["verified"]["metric"] == pytest.approx(summary["final"])
    small = detprune.load(finished / "pruned.pt")
    assert type(small) is type(load_model(finished / "pruned.pt"))
    assert lacks_channels(small)
    assert read_masks(finished / "pruned.pt") is None
    assert sum(p.numel() for p in small.parameters()) == removal["small"]["parameters"]
    dense = finished / "checkpoints" / "dense" / "weights" / "best.pt"
    assert (finished / "pruned.pt").stat().st_size < dense.stat().st_size
    for layer in ("model.0", "model.13"):  # frozen
        name = f"{layer}.conv.weight"
        assert len(small.get_parameter(name)) == len(load_model(dense).get_parameter(name))
    assert [e["stage"] for e in events(finished) if e["event"] == "stage"] == [
        *("dense", "hard_pruned", "removed", "final")
    ]
    assert (finished / "pictures" / "detections.jpg").is_file()


def test_killed_in_training_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = finished.parent / "recipe.yaml", tmp_path / "run"
    arguments = ("run", recipe, "--out", run, "--resume")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    marks = (("constrained", 1), ("retrain", 1))  # in the dense stage nothing knows of channels
    kill_after(arguments, run, marks, preloaded="yolo", **quiet)
    assert detprune_here(*arguments, monkeypatch=monkeypatch) == 0
    assert same_bits(finished, run)
    assert events(finished) == events(run)


def test_killed_between_hard_pruning_and_removal(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    marks = json.loads((run / "progress.json").read_text())
    left = {stage: marks[stage] for stage in ("dense", "hard_pruned")}
    (run / "progress.json").write_text(json.dumps(left))
    for file in ("pruned.pt", "summary.json", "checkpoints/removed.pt", "checkpoints/final.pt"):
        (run / file).unlink()
    shutil.rmtree(run / "checkpoints" / "retrain")
    assert detprune_here("run", run, "--resume", monkeypatch=monkeypatch) == 0
    assert same_bits(finished, run)


def test_single_weights_of_the_small_detector_are_an_ordinary_run(
    finished: Path, tmp_path: Path, recipe_file: RecipeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copy.deepcopy(TINY)
    recipe |= {"model": {"weights": str(finished / "pruned.pt")}, "method": "magnitude"}
    recipe["stages"] = {
        "constrained": {"epochs": 0},
        "retrain": {"epochs": 1, "train": {"lr0": 0.01}},
    }
    file = recipe_file(tmp_path, recipe)
    assert detprune_here("run", file, "--out", tmp_path / "run", monkeypatch=monkeypatch) == 0
    pruned, small = (load_model(run / "pruned.pt") for run in (tmp_path / "run", finished))
    assert read_masks(tmp_path / "run" / "pruned.pt")
    assert lacks_channels(pruned)
    assert all(p.shape == small.get_parameter(n).shape for n, p in pruned.named_parameters())


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("budget={compression: 3}", "counts single weights"),
        ("budget={macs: 0.001}", "are left; ask for"),
        ("budget={macs: 0.5, include: [nothing.*]}", "include: the pattern 'nothing.*' matches no"),
        ("stages.constrained.train.freeze=21", "no channel of this network can be removed"),
        ("set.round_to=512", "round_to is 512"),
    ],
)
def test_what_cannot_be_is_said_before_training(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    text: str,
) -> None:
    recipe = finished.parent / "recipe.yaml"
    out = ("--out", tmp_path / "run", "--set", setting)
    assert detprune_here("run", recipe, *out, monkeypatch=monkeypatch) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_other_classes_need_the_dense_network(finished: Path) -> None:
    spec = ModelSpec(weights=finished / "pruned.pt")
    with pytest.raises(InputError, match=r"keeps its head and so its 6 classes.*\(a, b\)"):
        build_network(spec, {0: "a", 1: "b"}, any_classes=True)
    own = load_model(finished / "pruned.pt")
    assert lacks_channels(build_network(spec, own.names, any_classes=True))


def test_measuring_a_run(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert (
        detprune_here("measure", finished, "--repeats", "3", "--json", monkeypatch=monkeypatch) == 0
    )
    found = json.loads(capsys.readouterr().out)
    removal = json.loads((finished / "summary.json").read_text())["removal"]
    assert found["shapes"] == [[1, 3, 64, 64]]
    assert found["pruned"]["macs"] == removal["small"]["macs"]
    assert found["dense"]["macs"] == removal["dense"]["macs"]
    assert found["pruned"]["pt_bytes"] < found["dense"]["pt_bytes"]
    assert found["pruned"]["onnx_bytes"] < found["dense"]["onnx_bytes"]
    stage = finished / "checkpoints" / "hard_pruned.pt"
    assert (
        detprune_here(
            "measure",
            finished / "pruned.pt",
            "--against",
            stage,
            "--repeats",
            "3",
            monkeypatch=monkeypatch,
        )
        == 0
    )
    assert "pruned.pt" in capsys.readouterr().out
