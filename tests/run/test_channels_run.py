"""Runs that remove whole channels: removal, retraining of the small network, proof, resume."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_recipe import TINY

from command_line import detprune, detprune_here, kill_after
from detprune import InputError, load
from detprune.run.adapter import load_recipe
from detprune.run.directory import RunDirectory
from detprune.run.export.onnx_files import session
from detprune.run.measuring.runs import measure_run
from detprune.run.measuring.table import columns, rows
from detprune.run.report.run_files import read_run

pytestmark = pytest.mark.slow

RECIPE = {
    **copy.deepcopy(TINY),
    "measure": True,
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
    measured = summary["measured"]
    assert measured["pruned"]["macs"] == removal["small"]["macs"]
    assert measured["pruned"]["pt_bytes"] < measured["dense"]["pt_bytes"]
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
    assert "Size and speed" in page
    assert "ms in PyTorch" in page
    assert "after retraining of the small network" in page
    assert "channels were removed, so that the layers have other shapes" in page
    epochs = read_run(finished).epochs
    constrained, retrain = (
        median(epoch.seconds or 0.0 for epoch in epochs[stage])
        for stage in ("constrained", "retrain")
    )
    assert f"{retrain / constrained:.2f} of one of constrained training" in page
    assert "An epoch of retraining" in page


def test_the_file_opens_without_the_recipe(finished: Path) -> None:
    network = load(finished / "pruned.pt")
    images = torch.rand(3, 1, 8, 8)
    code = (
        "import sys, torch; sys.modules['detprune'] = None; "
        f"program = torch.export.load({str(finished / 'pruned.pt2')!r}); "
        "torch.save(program.module()(torch.load(sys.argv[1])), sys.argv[2])"
    )
    given, answer = finished / "images.pt", finished / "logits.pt"
    torch.save(images, given)
    subprocess.run([sys.executable, "-c", code, given, answer], check=True, capture_output=True)
    with torch.no_grad():
        torch.testing.assert_close(torch.load(answer), network(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"task": None}, "lacks task"),
        ({"task": "lane"}, "unknown task 'lane'"),
        ({"network": {"nam": "x"}}, "from which its network cannot be built"),
        ({"network": {"name": "cifar_resnet32", "num_classes": 10, "in_channels": 1}}, "it lacks"),
        (
            {"network": {"name": "cifar_resnet20", "num_classes": 10**9, "in_channels": 1}},
            "description",
        ),
        ({"network": 3}, "from which its network cannot be built"),
        ({"widths": {}}, "states None"),
        ({"widths": 3}, "are no mappings"),
        ({"state_dict": {"conv1.weight": 1}}, "conv1.weight in state_dict are no tensors"),
        ({"state_dict": {"conv1.weight": torch.zeros(2)}}, "it lacks"),
    ],
)
def test_files_that_hold_something_else(
    change: dict[str, Any], text: str, finished: Path, tmp_path: Path
) -> None:
    saved = torch.load(finished / "pruned.pt", weights_only=True) | change
    torch.save({k: v for k, v in saved.items() if v is not None}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=text):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda state: state["conv1.weight"].fill_(float("nan")),
            "holds NaN or infinite values in",
        ),
        (lambda state: state["bn1.running_var"].fill_(float("inf")), "in bn1.running_var"),
        (
            lambda state: state.update({"conv1.weight": state["conv1.weight"].int()}),
            "conv1.weight in state_dict are another kind of number",
        ),
        (
            lambda state: state.update({"conv1.weight": state["conv1.weight"].to_sparse()}),
            "conv1.weight in state_dict are no plain tensors",
        ),
        (
            lambda state: state.update({"conv1.weight": state["conv1.weight"].to("meta")}),
            "conv1.weight in state_dict are no plain tensors",
        ),
        (lambda state: state.update({5: torch.ones(1)}), "5 in state_dict are no tensors with a n"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_weights_that_are_none_are_refused(
    spoil: Callable[[Any], object], text: str, finished: Path, tmp_path: Path
) -> None:
    saved = torch.load(finished / "pruned.pt", weights_only=True)
    spoil(saved["state_dict"])
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(InputError, match=text):
        load(tmp_path / "x.pt")


@pytest.mark.parametrize("path", [None, 5, b"x.pt", ["x.pt"], {}, "~nobody-of-this-name/x.pt"])
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(InputError, match=r"give pruned\.pt of a run that removed channels"):
        load(path)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harmed",)


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"task": "classification", "network": Harm()}, "harm.pt")
    with pytest.raises(InputError, match="would run"):
        load("harm.pt")
    assert not Path("harmed").exists()


def test_evaluate_takes_the_small_network(finished: Path) -> None:
    recipe = finished / "recipe.yaml"
    done = detprune("evaluate", "classification", recipe, "--checkpoint", finished / "pruned.pt")
    summary = json.loads((finished / "summary.json").read_text())
    assert json.loads(done.stdout)["value"] == pytest.approx(summary["final"])


def test_killed_in_every_stage_and_resumed_gives_the_same_bits(
    finished: Path, tmp_path: Path
) -> None:
    recipe, run = finished.parent / "channels.yaml", tmp_path / "run"
    arguments = ("run", recipe, "--out", run, "--resume")
    kill_after(arguments, run, (("dense", 2), ("constrained", 2), ("retrain", 2)))
    detprune(*arguments)
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


def test_a_budget_that_leaves_everything_runs_to_the_end(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is pruned then, over which no share of zeros can be taken."""
    recipe, run = finished.parent / "channels.yaml", tmp_path / "run"
    stages = [f"stages.{stage}.epochs=0" for stage in ("dense", "constrained", "retrain")]
    settings = ("budget={macs: 1.0}", "measure=false", *stages)
    sets = [word for setting in settings for word in ("--set", setting)]
    assert detprune_here("run", recipe, "--out", run, *sets, monkeypatch=monkeypatch) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["sparsity"], summary["compression"]) == (0.0, 1.0)
    assert summary["removal"]["small"] == summary["removal"]["dense"]


def measured(*arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> dict[str, Any]:
    command = ("measure", *map(str, arguments), "--repeats", "3", "--json")
    assert detprune_here(*command, monkeypatch=monkeypatch) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_measuring_a_run(finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    found = measured(finished, monkeypatch=monkeypatch, capsys=capsys)
    removal = json.loads((finished / "summary.json").read_text())["removal"]
    for name, own in (("dense", "dense"), ("pruned", "small")):
        assert found[name]["macs"] == removal[own]["macs"]
        assert found[name]["parameters"] == removal[own]["parameters"]
    assert found["pruned"]["pt_bytes"] == (finished / "pruned.pt").stat().st_size
    assert found["pruned"]["pt_bytes"] < 0.7 * found["dense"]["pt_bytes"]
    assert found["pruned"]["onnx_bytes"] < 0.7 * found["dense"]["onnx_bytes"]
    assert [y["runtime"] for y in found["latencies"]] == ["PyTorch", "ONNX Runtime", "OpenVINO"]
    assert all(y["ratio"] for y in found["latencies"][:2])


def test_measuring_files_of_a_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    dense, zeroed = (finished / "checkpoints" / f"{stage}.pt" for stage in ("dense", "hard_pruned"))
    options = ("--size", 16, "--batch", 2)
    found = measured(zeroed, "--against", dense, *options, monkeypatch=monkeypatch, capsys=capsys)
    assert found["shapes"] == [[2, 1, 16, 16]]
    assert found["pruned"]["macs"] == found["dense"]["macs"]
    assert found["pruned"]["nonzero"] < found["dense"]["nonzero"]
    alone = measured(finished / "pruned.pt", monkeypatch=monkeypatch, capsys=capsys)
    assert alone["dense"] is None
    assert alone["pruned"]["parameters"] < found["dense"]["parameters"]


def test_what_cannot_be_measured(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (tmp_path / "empty").mkdir()
    shutil.copy(finished / "recipe.yaml", unfinished)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    (tmp_path / "text.pt").write_text("no network")
    torch.save({"weight": torch.zeros(3)}, finished / "other.pt")
    for path, options, text in (
        (
            tmp_path / "nowhere.pt",
            (),
            "No such file or directory; give a .pt file, or the folder of a run",
        ),
        (tmp_path / "empty", (), "holds no run (no recipe.yaml)"),
        (unfinished, (), "holds no finished run"),
        (tmp_path / "state.pt", (), "recipe.yaml"),
        (tmp_path / "text.pt", (), "recipe.yaml"),
        (finished / "other.pt", (), "none of the network's weights"),
        (finished, ("--device", "tpu"), "give cpu or cuda"),
        (
            finished,
            ("--against", tmp_path / "nowhere.pt"),
            "No such file or directory; give a .pt file, or the folder of a run",
        ),
    ):
        command = ("measure", str(path), *map(str, options))
        assert detprune_here(*command, monkeypatch=monkeypatch) == 2, text
        assert text in capsys.readouterr().err


def test_what_a_run_can_say_at_its_end(finished: Path, tmp_path: Path) -> None:
    adapter, recipe = load_recipe(finished / "recipe.yaml")
    found = measure_run(adapter.task(recipe, RunDirectory(finished)))
    assert found is not None
    assert found.dense is not None
    assert found.notes == ()
    assert found.pruned.macs / found.dense.macs < 0.5
    assert [row[0] for row in rows(found)][:3] == ["parameters", "nonzero parameters", "MACs"]
    assert all(len(row) == len(columns(found)) for row in rows(found))
    empty = adapter.task(recipe, RunDirectory(tmp_path))
    assert measure_run(empty) is None  # said in the log, and no failure


def test_the_small_classifier_is_exported(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    refused = detprune("export", finished, "--format", "engine", code=2).stderr
    assert "unknown export format 'engine'; known: onnx; for another one, give" in refused
    said = detprune("export", finished, "--out", out).stdout
    assert "convolutions and linear layers are zero, and all are the network's" in said
    network = load(finished / "pruned.pt").eval()
    images = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        expected = network(images).numpy()
    (logits,) = session(out).run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
