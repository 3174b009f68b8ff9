"""Runs that remove whole channels: removal, retraining of the small network, proof, resume."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import detprune, detprune_here, kill_after
from tiny_recipe import TINY

from detprune.rundir import RunDirectory

RECIPE = {
    **copy.deepcopy(TINY),
    "method": {"name": "admm", "rho": "auto", "free_support": True, "ramp": 0.75},
    "set": {"name": "coupled_channels", "round_to": 4},
    "budget": {"macs": 0.5},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("channels")
    recipe = folder / "channels.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    detprune("run", recipe, "--out", folder / "run")
    return folder / "run"


def test_the_summary_says_what_is_left(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    removal = summary["removal"]
    assert removal["difference"] < 1e-5
    assert 0.45 < removal["small"]["macs"] / removal["dense"]["macs"] <= 0.5
    assert summary["removed"] == pytest.approx(summary["hard_pruned"], abs=0.011)  # 100 images
    small = torch.load(finished / "pruned.pt", weights_only=True)
    parameters = removal["small"]["parameters"]
    assert summary["verified"]["metric"] == pytest.approx(summary["final"])
    assert summary["model_compression"] == pytest.approx(
        removal["dense"]["parameters"] / parameters, rel=1e-3
    )
    assert small["state_dict"]["conv1.weight"].shape[0] in (4, 8, 12, 16)
    kept = sum(layer["nonzero"] for layer in summary["layers"] if layer["pruned"])
    assert kept == summary["verified"]["nonzero"]


def test_the_report_has_the_sizes(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert "Multiply-accumulate operations (MACs)" in page
    assert "after retraining of the small network" in page
    assert "channels were removed, so that the layers have other shapes" in page


def test_killed_in_every_stage_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path
) -> None:
    recipe, run = finished.parent / "channels.yaml", tmp_path / "run"
    command = [sys.executable, "-m", "detprune", "run", str(recipe), "--out", str(run), "--resume"]
    kill_after(command, run, (("dense", 2), ("constrained", 2), ("retrain", 2)))
    detprune(*command[3:])
    expected, found = (
        torch.load(path / "pruned.pt", weights_only=True)["state_dict"] for path in (finished, run)
    )
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [e["event"] for e in RunDirectory(finished).events()] == [
        e["event"] for e in RunDirectory(run).events()
    ]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["budget={compression: 10}"], "counts single weights"),
        (["budget={macs: 0.0001}"], "or more, use a smaller round_to"),
        (["budget={macs: 1.5}"], "above 0, up to 1"),
        (["budget={macs: 0.5, sparsity: 0.5}"], "one target"),
        (["set=unstructured"], "count whole channels, which CoupledChannels"),
        (["set={name: coupled_channels, round_to: 0}"], "round_to"),
        (["set={name: coupled_channels, round_to: 64}"], "round_to is 64"),
        (["set={name: coupled_channels, rond_to: 4}"], "did you mean 'round_to'"),
        (["set={name: coupled_channels, forward: x}"], "unknown key set.forward"),
    ],
)
def test_what_cannot_be_is_said_before_training(
    settings: list[str],
    text: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sets = [word for setting in settings for word in ("--set", setting)]
    recipe = finished.parent / "channels.yaml"
    code = detprune_here("run", recipe, "--out", tmp_path / "run", *sets, monkeypatch=monkeypatch)
    assert code == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_suggest_is_for_single_weights(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = f"model.weights={finished / 'checkpoints/dense.pt'}"
    arguments = ["suggest", finished.parent / "channels.yaml", "--set", weights]
    arguments += ["--out", tmp_path / "suggested.yaml"]
    assert detprune_here(*arguments, monkeypatch=monkeypatch) == 2
    assert "coupled channels run through many" in " ".join(capsys.readouterr().err.split())
