"""detprune suggest for whole channels: what budgets cost before any training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from command_line import Call, detprune
from detprune.errors import InputError
from detprune.run.adapter import implementation
from detprune.run.budget_curve import BudgetCurve, Point, budget_curve
from detprune.run.directory import RunDirectory
from detprune.run.metrics import Metric
from detprune.run.recipe import validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask

pytestmark = pytest.mark.slow

CHANNELS = {"set": {"name": "coupled_channels", "round_to": 4}, "budget": {"macs": 0.5}}


def recipe_of(tiny: dict[str, Any], weights: Path | None, **changes: Any) -> ClassificationRecipe:
    stages = {**tiny["stages"], "dense": None} if weights else tiny["stages"]
    model = {**tiny["model"], "weights": str(weights)} if weights else tiny["model"]
    values = {**tiny, **CHANNELS, "model": model, "stages": stages, **changes}
    return validate(ClassificationRecipe, values)


@pytest.fixture
def weights(tiny: dict[str, Any], tmp_path: Path) -> Path:
    task = ClassificationTask(recipe_of(tiny, None), RunDirectory(tmp_path / "none"))
    torch.save(task.build_model().state_dict(), tmp_path / "dense.pt")
    return tmp_path / "dense.pt"


def test_every_share_is_measured_with_both_allocations(tiny: dict[str, Any], weights: Path) -> None:
    found = budget_curve(implementation("classification"), recipe_of(tiny, weights), images=32)
    assert [p.share for p in found.points] == [s for s in (0.8, 0.6, 0.5, 0.4, 0.3) for _ in "ab"]
    assert [p.allocation for p in found.points] == ["uniform", "global"] * 5
    for point in found.points:
        assert 0.8 * point.share < point.macs <= point.share
        assert 0 < point.parameters < 1
        assert 0 <= point.metric <= 1
    own = {p.allocation: p.loss for p in found.points if p.share == 0.5}
    assert found.recipe.budget.allocation == min(own, key=lambda name: own[name])
    assert found.recipe.budget.macs == 0.5


def test_a_share_out_of_reach_is_left_out_and_named(tiny: dict[str, Any], weights: Path) -> None:
    narrow = recipe_of(tiny, weights, set={"name": "coupled_channels", "round_to": 8})
    found = budget_curve(implementation("classification"), narrow, images=16)
    missing = {0.8, 0.6, 0.5, 0.4, 0.3} - {p.share for p in found.points}
    assert missing == {share for share, _ in found.unreachable}
    for share in missing:
        for allocation in ("uniform", "global"):
            assert found.unreachable[share, allocation].startswith(f"budget: macs is {share:g}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"budget": {"sparsity": 0.5}},
            r"give budget\.macs, budget\.parameters or budget\.latency",
        ),
        ({"budget": {"macs": 0.0001}}, r"macs is 0\.0001, but with one step"),
    ],
)
def test_refusals(tiny: dict[str, Any], weights: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        budget_curve(implementation("classification"), recipe_of(tiny, weights, **changes), 16)


def test_weights_are_needed(tiny: dict[str, Any]) -> None:
    named = r"--set model\.weights=runs/x/checkpoints/dense\.pt --set stages\.dense=null"
    with pytest.raises(InputError, match=f"names no weights of a dense network.* {named}"):
        budget_curve(implementation("classification"), recipe_of(tiny, None), 16)


def test_the_table_and_the_curve(tiny: dict[str, Any], tmp_path: Path) -> None:
    points = [
        Point("uniform", 0.6, 0.59, 0.5, 1.25, 0.5),
        Point("global", 0.6, 0.6, 0.7, 2.5, 0.25),
    ]
    metric, recipe = Metric("accuracy"), recipe_of(tiny, None)
    curve = BudgetCurve(
        "macs",
        "net",
        metric,
        0.9,
        0.1,
        0.6,
        points,
        {(0.3, "global"): "too little; ask for more"},
        recipe,
    )
    cells = [list(column.cells) for column in curve.table().columns]
    assert [column[-1] for column in cells] == [
        "0.6",
        "0.5000",
        "1.250",
        "0.50",
        "0.2500",
        "2.500",
        "0.70",
    ]
    assert str(curve.table().caption).endswith("0.3, global is out of reach: too little")
    curve.draw(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(tiny_file: Path, weights: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "plan.yaml"
    settings = [f"model.weights={weights}", "stages.dense=null", "budget={macs: 0.5}"]
    settings += ["set={name: coupled_channels, round_to: 4}"]
    arguments = ["suggest", tiny_file, *(x for s in settings for x in ("--set", s)), "--out", out]
    output = detprune(*arguments, "--images", 16).stdout
    assert f"curve: {tmp_path / 'plan.png'}" in output
    assert yaml.safe_load(out.read_text())["budget"]["macs"] == 0.5
    assert "exists already" in call(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("out", "picture"),
    [
        ("plan.yaml", "plan.png"),
        ("plan.png", "plan.png.png"),
        ("plan.0.5", "plan.0.5.png"),
        ("plan", "plan.png"),
    ],
)
def test_the_curve_replaces_no_file(
    tiny: dict[str, Any],
    tmp_path: Path,
    here: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    picture: str,
) -> None:
    def found(_: object, recipe: Any, images: int) -> BudgetCurve:
        point = Point("uniform", 0.6, 0.59, 0.5, 1.25, 0.5)
        return BudgetCurve("macs", "net", Metric("accuracy"), 0.9, 0.1, 0.6, [point], {}, recipe)

    monkeypatch.setattr("detprune.run.budget_curve.budget_curve", found)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**tiny, **CHANNELS}), encoding="utf-8")
    (tmp_path / picture).write_text("mine")
    code, said = here("suggest", recipe, "--out", out)
    assert (code, f"as {picture}, which exists already" in said) == (2, True), said
    assert (tmp_path / picture).read_text() == "mine"
    assert not (tmp_path / out).exists()
    (tmp_path / picture).unlink()
    assert here("suggest", recipe, "--out", out)[0] == 0
    assert "task: classification" in (tmp_path / out).read_text(encoding="utf-8")
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
