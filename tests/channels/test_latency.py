"""Latency budgets without a clock: times are known functions of the widths."""

import copy
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from latency_tables import Small, channels, filled, layer_ms, network_ms, on_disk, times
from torch import nn

import detprune as dp
from detprune.channels.latency_table import read_table, table_of
from detprune.latency_targets import LatencyTarget
from detprune.run.latency import choosing, measured_budget, profiling
from detprune.run.latency.cache import Cache
from detprune.run.latency.timing import check_target
from detprune.run.recipe.components import dump, parse_budget

X = torch.zeros(1, 3, 16, 16)


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profiling, "layer_ms", layer_ms)
    for module in (choosing, profiling):
        monkeypatch.setattr(module, "network_times", times())


def _shrunk(model: nn.Module, budget: dp.Budget, **options: Any) -> nn.Module:
    pruner = dp.Pruner(model, None, dp.OneShot(), channels(**options), budget)
    pruner.hard_prune()
    return pruner.shrink()


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_the_time_is_predicted_exactly_where_it_is_bilinear(
    tmp_path: Path, allocation: Any, share: float
) -> None:
    model = Small()
    target: Any = on_disk(filled(model, channels()), tmp_path / "table.yaml")
    budget = dp.Budget(latency=share, target=target, allocation=allocation)
    dense = network_ms(model, [X], 0.0)
    _, predicted, least = channels().latency_of(model, budget)
    found = network_ms(_shrunk(model, budget), [X], 0.0) / dense
    assert predicted == pytest.approx(found, rel=1e-9)
    assert share - (0.12 if allocation == "uniform" else 0.15) < found <= share  # in steps of 4
    assert least < 0.1


def test_global_keeps_more_of_the_norm_for_the_same_time(tmp_path: Path) -> None:
    model = Small()
    with torch.no_grad():
        model.two.weight[32:] *= 1e-3  # half of these channels can go for nothing
        model.two.bias[32:] = 0
    target: Any = on_disk(filled(model, channels()), tmp_path / "table.yaml")
    small: Any = _shrunk(model, dp.Budget(latency=0.6, target=target, allocation="global"))
    assert small.two.out_channels == 32
    assert small.one.out_channels > 0.6 * 32


def test_a_measured_budget_meets_the_time_and_names_a_table(no_clock: None, tmp_path: Path) -> None:
    model, path = Small(), tmp_path / "table.yaml"
    before = copy.deepcopy(model.state_dict())
    budget = measured_budget(model, channels(), dp.Budget(latency=0.5), table=path)
    assert budget.target == LatencyTarget(table=str(path))
    real = network_ms(_shrunk(model, budget), [X]) / network_ms(Small(), [X])
    chosen = read_table(path).chosen
    assert chosen is not None
    assert 0.45 < real < 0.55
    assert chosen == {
        "asked": 0.5,
        "predicted": pytest.approx(real, rel=0.02),
        "measured": pytest.approx(real, abs=1e-4),
    }
    for name, value in Small().state_dict().items():
        assert value.shape == before[name].shape
    same: Any = _shrunk(Small(), budget)
    assert same.one.out_channels == _shrunk(model, budget).one.out_channels  # type: ignore[attr-defined]


def test_what_the_table_gets_wrong_is_corrected_before_training(
    no_clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The layers say nothing of a large constant time, and the clock of whole networks shows it."""
    monkeypatch.setattr(profiling, "KEEPS", (1.0,))  # so that the table cannot know
    slow = times(fixed=network_ms(Small(), [X], 0.0))  # as much as all layers together
    monkeypatch.setattr(choosing, "network_times", slow)
    path = tmp_path / "table.yaml"
    budget = measured_budget(Small(), channels(), dp.Budget(latency=0.7), table=path)
    table = read_table(path)
    assert table.chosen is not None
    assert table.chosen["measured"] == pytest.approx(0.7, abs=0.03)
    assert table.chosen["predicted"] < 0.5
    assert table.adjust == pytest.approx(0.5, abs=0.1)
    with pytest.raises(
        dp.InputError, match=r"latency is 0.3, but the nearest that was measured .* is 0\.5"
    ):
        measured_budget(Small(), channels(), dataclasses.replace(budget, latency=0.3, target=None))


def test_layers_are_timed_once_and_kept_by_hardware(
    no_clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed: list[object] = []

    def noted(*args: Any) -> float:
        timed.append(args)
        return layer_ms(*args)

    monkeypatch.setattr(profiling, "layer_ms", noted)
    for _ in range(2):
        measured_budget(Small(), channels(), dp.Budget(latency=0.5), table=tmp_path / "table.yaml")
    once = len(timed)
    assert len(set(timed)) * 2 == once  # two passes, far apart
    other = dp.Budget(latency=0.5, target={"threads": 2})  # type: ignore[arg-type]
    measured_budget(Small(), channels(), other, table=tmp_path / "table.yaml")
    assert len(timed) == 2 * once


def test_two_budgets_keep_a_table_each(
    no_clock: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    budgets = [measured_budget(Small(), channels(), dp.Budget(latency=s)) for s in (0.5, 0.7)]
    tables = [read_table(Path(str(own.target and own.target.table))) for own in budgets]
    assert [own.chosen and own.chosen["asked"] for own in tables] == [0.5, 0.7]


def test_a_damaged_cache_is_measured_again(tmp_path: Path) -> None:
    kind = (
        profiling.empty_table(
            profiling.Subject.on(LatencyTarget(), Small(), channels(), dp.Budget(latency=0.5)),
            LatencyTarget(),
        )
        .layers[0]
        .kind
    )
    cache = Cache({"machine": "a"}, tmp_path)
    cache.put(kind, 3, 8, 0.25)
    cache.save()
    assert Cache({"machine": "a"}, tmp_path).get(kind, 3, 8) == 0.25
    assert Cache({"machine": "b"}, tmp_path).get(kind, 3, 8) is None
    deep = '{"times":' + "[" * 100_000 + "]" * 100_000 + "}"
    for content in ("", "{", "[]", '{"times": 3}', '{"times": {"a": "b"}}', deep, b"\xff"):
        cache.file.write_bytes(content.encode() if isinstance(content, str) else content)
        assert Cache({"machine": "a"}, tmp_path).get(kind, 3, 8) is None


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda p: p.symlink_to("/dev/zero")])
def test_what_is_no_file_in_the_cache_is_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    """A pipe would be waited for, and a device read until the memory is full; a link is replaced."""
    place = Cache({"machine": "a"}, tmp_path).file
    make(place)
    linked = place.is_symlink()
    kind = filled(Small(), channels()).layers[0].kind
    cache = Cache({"machine": "a"}, tmp_path)
    assert cache.get(kind, 3, 8) is None
    cache.put(kind, 3, 8, 0.25)
    cache.save()
    assert place.is_file() == linked


def test_a_table_read_back_is_the_same(tmp_path: Path) -> None:
    table = filled(Small(), channels())
    on_disk(table, tmp_path / "table.yaml")
    assert read_table(tmp_path / "table.yaml").as_dict() == table.as_dict()


def _changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(values)
    place: Any = values
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        place = place[part]
    place[last] = value
    return values


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("layers.0.ms.0.0", -1.0, "ms, 3 to 8 channels is -1.0; allowed is a number above 0"),
        ("layers.0.ms.0.0", math.nan, "ms, 3 to 8 channels is nan"),
        ("layers.0.ms.0.0", math.inf, "is inf"),
        ("layers.0.ms.0.0", 0, "is 0; allowed"),
        ("layers.0.ms.0.0", 1e300, "is 1e\\+300; allowed is a number above 0 and below 1e\\+09"),
        ("networks.0.ms", 10**400, "allowed is a number above 0 and below"),
        ("layers.0.ms.0.0", "2 ms", "is '2 ms'; allowed"),
        ("layers.0.ms.0.0", True, "is True; allowed"),
        ("layers.0.ms.0", [1.0], "ms has to have 1 rows"),
        ("layers.0.ms", 1.0, "it has to be a list"),
        ("layers.0.inputs", [0], "whole numbers, 1 or more"),
        ("layers.0.layer", {"operation": "conv2d"}, "which describes no layer"),
        ("layers.0", 3, "layers, row 1 holds no mapping"),
        ("layers", {}, "has to be a list"),
        ("networks", [], "no row of the dense network"),
        ("networks.0.keep", 0.5, "no row of the dense network"),
        ("networks.0.ms", -3, "networks, row 1: ms is -3"),
        ("networks.0.keep", 2, "keep is 2; allowed is a share"),
        ("detprune_latency", 7, "is 7; this version reads 1"),
        ("round_to", 0, "whole numbers, 1 or more"),
        ("target", None, "target holds no mapping"),
    ],
)
def test_a_table_with_a_wrong_entry_says_where(path: str, value: Any, text: str) -> None:
    values = filled(Small(), channels()).as_dict()
    with pytest.raises(dp.InputError, match=text):
        table_of(_changed(values, path, value), "table.yaml")


@pytest.mark.parametrize("values", [None, 3, [], {}, {"layers": []}])
def test_another_file_is_no_table(values: object) -> None:
    with pytest.raises(dp.InputError, match=r"no mapping|no table of latencies"):
        table_of(values, "table.yaml")


def test_missing_times_are_named(tmp_path: Path) -> None:
    values = filled(Small(), channels()).as_dict()
    for path, text in (
        ("layers.0.ms.0.0", r"1 times are missing: conv2d 3x3 on 16x16, 3 to 8 channels"),
        ("networks.0.ms", r"1 times are missing: the dense network"),
    ):
        file = tmp_path / "table.yaml"
        file.write_text(yaml.safe_dump(_changed(values, path, None)), encoding="utf-8")
        with pytest.raises(dp.InputError, match=text):
            channels().bind(Small(), dp.Budget(latency=0.5, target=LatencyTarget(table=str(file))))


def test_tables_of_another_network_or_size_are_refused(tmp_path: Path) -> None:
    target: Any = on_disk(filled(Small(), channels()), tmp_path / "table.yaml")
    budget = dp.Budget(latency=0.5, target=target)
    wider = Small()
    wider.two, wider.last = nn.Conv2d(32, 80, 3, stride=2, padding=1), nn.Linear(80, 10)
    with pytest.raises(dp.InputError, match=r"is of another network.* no times of two\.weight"):
        channels().bind(wider, budget)
    grey = dp.CoupledChannels(torch.zeros(1, 1, 16, 16))
    first = Small()
    first.one = nn.Conv2d(1, 32, 3, padding=1)
    with pytest.raises(
        dp.InputError, match=r"inputs of shape \(1, 3, 16, 16\), but this one takes"
    ):
        grey.bind(first, budget)
    larger = dp.CoupledChannels(torch.zeros(1, 3, 32, 32), round_to=4)
    assert (
        larger.bind(Small(), budget).counts.tolist()
        == channels().bind(Small(), budget).counts.tolist()
    )


def test_a_latency_below_what_fixed_layers_take_names_the_least(tmp_path: Path) -> None:
    target: Any = on_disk(filled(Small(), channels()), tmp_path / "table.yaml")
    budget = dp.Budget(latency=0.05, target=target, exclude=["two", "last"])
    with pytest.raises(
        dp.InputError, match=r"latency is 0\.05, but .* 0\.\d+ of the dense network's time is left"
    ):
        channels().bind(Small(), budget)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"latency": 0}, "latency is 0, allowed is a number above 0"),
        ({"latency": 1.2}, "latency is 1.2"),
        ({"latency": 0.5, "macs": 0.5}, "one target"),
        ({"target": {"device": "cpu"}}, "give latency=0.5 with it"),
        ({"latency": 0.5, "target": {"devise": "cpu"}}, r"'devise' \(did you mean 'device'\?\)"),
        ({"latency": 0.5, "target": "cpu"}, "write a mapping"),
        ({"latency": 0.5, "target": {"device": "gpu"}}, "allowed is cpu or cuda"),
        ({"latency": 0.5, "target": {"runtime": "onnx"}}, "known: onnxruntime, openvino"),
        ({"latency": 0.5, "target": {"threads": 0}}, "threads is 0"),
        ({"latency": 0.5, "target": {"batch": 1.5}}, "batch is 1.5"),
        ({"latency": 0.5, "target": {"size": -1}}, "size is -1"),
        ({"latency": 0.5, "target": {"precision": "fp16"}}, "fp16 is measured with runtime: torch"),
        ({"latency": 0.5, "target": {"precision": "int8"}}, "precision 'int8'"),
        ({"latency": 0.5, "target": {"runtime": "tensorrt"}}, "give device: cuda"),
        ({"latency": 0.5, "target": {"runtime": "openvino", "device": "cuda"}}, "device: cpu only"),
        (
            {"latency": 0.5, "target": {"table": "a.yaml", "threads": 2}},
            "threads would be measured here",
        ),
        ({"latency": 0.5, "target": {"table": 3}}, "give the path"),
    ],
)
def test_budgets_that_contradict_themselves_are_refused(options: Any, text: str) -> None:
    with pytest.raises(dp.InputError, match=text):
        dp.Budget(**options)
    with pytest.raises(dp.InputError, match=r"budget"):
        parse_budget(options)


def test_a_recipe_gives_the_same_budget_as_python() -> None:
    target: Any = {"device": "cuda", "runtime": "torch", "precision": "fp16"}
    budget = dp.Budget(latency=0.5, target=target)
    assert parse_budget({"latency": 0.5, "target": target}) == budget
    assert parse_budget(dump(budget)) == budget
    assert yaml.safe_load(yaml.safe_dump(dump(budget)))["target"]["precision"] == "fp16"


def test_latency_is_for_whole_channels() -> None:
    with pytest.raises(dp.InputError, match=r"latency .* count whole channels"):
        dp.Pruner(Small(), None, dp.OneShot(), dp.Unstructured(), dp.Budget(latency=0.5))
    with pytest.raises(
        dp.InputError, match="times of the layers are not measured yet; detprune run"
    ):
        channels().bind(Small(), dp.Budget(latency=0.5))
    with pytest.raises(dp.InputError, match="No such file"):
        channels().bind(Small(), dp.Budget(latency=0.5, target=LatencyTarget(table="/none.yaml")))


def test_a_target_that_is_not_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(dp.InputError, match="finds 0 CUDA GPUs here"):
        check_target(LatencyTarget(device="cuda", runtime="torch"))
    monkeypatch.setattr("detprune.run.latency.timing.find_spec", lambda name: None)
    with pytest.raises(dp.InputError, match="pip install onnx openvino"):
        check_target(LatencyTarget(runtime="openvino"))


@pytest.mark.parametrize(
    ("points", "asked", "aim"),
    [
        ([(1.0, 1.0), (0.5, 0.6)], 0.5, 0.375),  # beyond the line through dense
        ([(1.0, 1.0), (0.5, 0.6), (0.4, 0.45)], 0.5, 0.4333),
        ([(1.0, 1.0), (0.5, 0.4)], 0.5, 0.5833),
        ([(1.0, 1.0), (0.5, 0.4), (0.6, 0.55)], 0.5, 0.5667),
        ([(1.0, 1.0), (0.9, 1.1)], 0.8, 0.72),  # the load of the machine hid the gain
    ],
)
def test_the_next_widths_lie_between_those_that_were_measured(
    points: list[tuple[float, float]], asked: float, aim: float
) -> None:
    assert choosing._interpolated(points, asked) == pytest.approx(aim, abs=1e-4)


def test_disturbed_times_are_found_and_measured_again(
    no_clock: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: dict[Any, int] = {}

    def disturbed(target: object, kind: Any, inputs: int, outputs: int) -> float:
        """Every fifth layer takes six times as long, except when it is timed a third time."""
        key = kind, inputs, outputs
        calls[key] = calls.get(key, 0) + 1
        slow = list(calls).index(key) % 5 == 0 and calls[key] < 3
        return (6 if slow else 1) * layer_ms(target, kind, inputs, outputs)

    monkeypatch.setattr(profiling, "layer_ms", disturbed)
    path = tmp_path / "table.yaml"
    measured_budget(Small(), channels(), dp.Budget(latency=0.5), table=path)
    for own in read_table(path).layers:
        for i, row in zip(own.inputs, own.ms.tolist(), strict=True):
            expected = [layer_ms(None, own.kind, i, o) for o in own.outputs]
            assert row == pytest.approx(expected, rel=1e-2)
