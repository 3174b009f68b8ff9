"""Runs with a latency budget, and ``detprune profile``; no clock decides what is asserted."""

import copy
import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import detprune as dp
from command_line import Call, detprune_here
from detprune.channels.latency_table import read_table
from detprune.run.adapter import implementation
from detprune.run.budget_curve import budget_curve
from detprune.run.latency import choosing, measured_budget, profiling, runs, timing
from detprune.run.measuring.deployment import Deployed
from detprune.run.measuring.pairs import Times
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe

pytestmark = pytest.mark.slow

RECIPE = {
    **copy.deepcopy(TINY),
    "set": {"name": "coupled_channels", "round_to": 4},
    "method": {"name": "admm", "rho": "auto"},
    "budget": {"latency": 0.6},
    "stages": {
        "dense": {"epochs": 1},
        "constrained": {"epochs": 1},
        "retrain": {"epochs": 1},
    },
}


def _layer_ms(_: object, kind: Any, inputs: int, outputs: int) -> float:
    area = torch.Size(kind.size).numel() / torch.Size(kind.stride).numel()
    return inputs * outputs * area * torch.Size(kind.kernel).numel() * 1e-6


def _network_times(_: object, networks: Sequence[Deployed], inputs: Sequence[Tensor]) -> Times:
    found = []
    for own in networks:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            own.timed(*inputs)
        found.append(counter.get_total_flops() / 2 * 1e-6)
    return Times((tuple(found),) * 3)


@pytest.fixture(scope="module")
def clockless(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(profiling, "layer_ms", _layer_ms)
        for module in (choosing, profiling, runs):
            patch.setattr(module, "network_times", _network_times)
        yield patch


@pytest.fixture(scope="module")
def finished(clockless: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latency")
    recipe = folder / "latency.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    assert detprune_here("run", recipe, "--out", folder / "run", monkeypatch=clockless) == 0
    return folder / "run"


def test_a_run_reports_the_time_beside_the_prediction(finished: Path) -> None:
    found = json.loads((finished / "summary.json").read_text())
    latency = found["latency"]
    assert latency["asked"] == 0.6
    assert latency["target"] == "onnxruntime, cpu, 1 thread"
    for key in ("predicted", "before_training", "measured"):
        assert latency[key] == pytest.approx(0.6, abs=0.03)
    assert latency["pruned_ms"] / latency["dense_ms"] == pytest.approx(latency["measured"])
    assert any(note.startswith("share of the dense network's time") for note in found["notes"])
    assert "measured before training" in (finished / "report.html").read_text()
    removal = found["removal"]
    left = removal["small"]["macs"] / removal["dense"]["macs"]
    assert left == pytest.approx(latency["measured"], abs=0.02)  # these clocks count operations


@pytest.mark.usefixtures("clockless")
def test_suggest_times_what_it_removes(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "dense.pt").write_bytes((finished / "checkpoints" / "dense.pt").read_bytes())
    values = copy.deepcopy(RECIPE)
    values["model"]["weights"] = str(tmp_path / "dense.pt")
    values["stages"]["dense"] = None
    recipe = validate(ClassificationRecipe, values)
    found = budget_curve(implementation("classification"), recipe, images=16)
    assert {0.8, 0.6, 0.4} <= {p.share for p in found.points if p.allocation == "uniform"}
    for point in found.points:  # these clocks count operations
        assert point.latency == pytest.approx(point.macs, abs=0.02)
        assert point.latency == pytest.approx(point.share, abs=0.05)  # or it is left out
    own = {point.allocation: point for point in found.points if point.share == 0.6}
    assert own["uniform"].latency == pytest.approx(0.6, abs=0.03)
    assert [column.header for column in found.table().columns][:4] == [
        "time",
        "uniform: accuracy",
        "loss",
        "measured time",
    ]
    assert found.recipe.budget.latency == 0.6
    assert found.recipe.budget.target is None


def test_a_resumed_run_measures_nothing_again(
    clockless: Any, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = finished / "checkpoints" / "latency.yaml"
    before = table.read_bytes()
    monkeypatch.setattr(runs, "measured_budget", lambda *_, **__: pytest.fail("measured again"))
    (finished / "summary.json").rename(finished / "summary_before.json")
    recipe = finished / "recipe.yaml"
    code = detprune_here("run", recipe, "--out", finished, "--resume", monkeypatch=clockless)
    assert code == 0
    assert table.read_bytes() == before
    again, first = (
        json.loads((finished / name).read_text())["latency"]
        for name in ("summary.json", "summary_before.json")
    )
    assert again == first


def test_a_run_takes_a_table_from_elsewhere(
    clockless: Any, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.yaml"
    table.write_bytes((finished / "checkpoints" / "latency.yaml").read_bytes())
    recipe = tmp_path / "recipe.yaml"
    values = {**RECIPE, "budget": {"latency": 0.5, "target": {"table": str(table)}}}
    values["stages"] = {name: {"epochs": 0} for name in ("dense", "constrained", "retrain")}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    out = tmp_path / "run"
    assert detprune_here("run", recipe, "--out", out, monkeypatch=clockless) == 0
    latency = json.loads((out / "summary.json").read_text())["latency"]
    assert latency["predicted"] == pytest.approx(0.5, abs=0.03)
    assert latency["measured"] is None
    assert "the target is not here" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("budget", "chosen", "text"),
    [
        ({"latency": 0.5}, "unstructured", "count whole channels"),
        ({"latency": 0.5}, "filter", "count whole channels"),
        ({"latency": 1e-4}, "coupled_channels", "latency is 0.0001, but"),
        (
            {"latency": 0.5, "target": {"device": "cuda", "runtime": "torch"}},
            None,
            "CUDA GPUs here",
        ),
        ({"latency": 0.5, "target": {"table": "none.yaml"}}, None, "No such file"),
        ({"latency": 0.5, "target": {"size": 40}}, None, ""),
    ],
)
def test_bad_budgets_are_refused_before_training(
    clockless: Any,
    here: Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    budget: Any,
    chosen: str | None,
    text: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    values = {**RECIPE, "budget": budget, "set": chosen or "coupled_channels"}
    values["stages"] = {name: {"epochs": 0} for name in ("dense", "constrained", "retrain")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    code, said = here("run", recipe, "--out", tmp_path / "run")
    if text:
        assert code == 2
        assert text in said
        assert not (tmp_path / "run" / "checkpoints" / "dense.pt").exists()
    else:  # another size of images than the training's
        assert code == 0, said
        table = read_table(tmp_path / "run" / "checkpoints" / "latency.yaml")
        assert table.inputs[0][2:] == (40, 40)


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_profile_writes_a_table_and_reads_it_back(
    clockless: Any, finished: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, folder = tmp_path / "table.yaml", tmp_path / "onnx"
    empty = call("profile", finished, "--out", table, "--no-measure", "--onnx", folder)
    assert "milliseconds in place of null" in empty.stdout
    listed = (folder / "files.csv").read_text().splitlines()
    assert len(listed) - 1 == len(list(folder.glob("*.onnx"))) > 50
    assert "times are missing" in call("profile", finished, "--check", table, code=2).stderr
    assert "exists already" in call("profile", finished, "--out", table, code=2).stderr
    assert "give --out" in call("profile", finished, code=2).stderr
    assert "not an empty folder" in (
        call("profile", finished, "--out", tmp_path / "b.yaml", "--onnx", folder, code=2).stderr
    )
    full = tmp_path / "full"
    with monkeypatch.context() as patch:
        patch.setattr(profiling, "write_layer", _no_room)
        lost = call(
            "profile", finished, "--no-measure", "--out", full, "--onnx", folder / "b", code=1
        )
    assert "No space left on device" in lost.stderr
    assert not full.exists()  # so that the command can be called again
    assert not (folder / "b").exists()
    values = yaml.safe_load(table.read_text())
    for row in values["layers"]:
        row["ms"] = [[i * o * 1e-6 for o in row["outputs"]] for i in row["inputs"]]
    values["networks"][0]["ms"] = 3.0
    table.write_text(yaml.safe_dump(values), encoding="utf-8")
    said = call("profile", finished, "--check", table).stdout
    unused = call("profile", finished, "--check", table, "--threads", 2, "--no-measure", code=2)
    assert "--threads, --no-measure would have no effect beside --check" in unused.stderr
    assert "dense 3.000 ms" in said
    assert "0.5" in said
    values["layers"] = values["layers"][1:]
    table.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert "is of another network" in call("profile", finished, "--check", table, code=2).stderr


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_real_clocks_fill_a_table(
    runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Convolutions of every kind are exported and timed; the numbers are the machine's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("_PASS", 0.0), ("_TIMING", 0.0), ("_ROUNDS", 3)):
        monkeypatch.setattr(timing, name, value)
    monkeypatch.setattr(profiling, "layer_ms", timing.layer_ms)
    for module in (choosing, profiling):
        monkeypatch.setattr(module, "network_times", timing.network_times)
    monkeypatch.setattr(choosing, "_FAR", 1.0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, 2, 1),
        torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16),
        torch.nn.Conv2d(16, 32, 3, groups=2),
        torch.nn.ConvTranspose2d(32, 16, 2, 2),
        torch.nn.Flatten(2),
        torch.nn.Conv1d(16, 16, 3),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 4),
    ).eval()
    channels = dp.CoupledChannels(torch.zeros(1, 3, 16, 16), round_to=4)
    budget = dp.Budget(latency=0.9, target={"runtime": runtime})  # type: ignore[arg-type]
    path = tmp_path / "table.yaml"
    found = measured_budget(model, channels, budget, table=path)
    table = read_table(path)
    kinds = {own.kind.operation for own in table.layers}
    assert kinds == {"conv1d", "conv2d", "conv_transpose2d", "linear"}
    assert all((own.ms > 0).all() for own in table.layers)
    assert [own.ms is not None for own in table.networks] == [True] * 3
    assert channels.bind(model, found).sizes.sum() > 0
