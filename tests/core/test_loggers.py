"""All that the product logs is below ``detprune``: what run.log and the terminal listen to."""

import ast
import logging
from pathlib import Path

import pytest

from detprune.loggers import logger
from detprune.run.directory import RunDirectory

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "detprune").rglob("*.py"), *(ROOT / "adapters").rglob("*.py")]
FOREIGN = ("lightning.pytorch",)  # set quieter, never written to


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("detprune", "detprune"),
        ("detprune.run.pipeline", "detprune.run.pipeline"),
        ("detprune_lanes", "detprune.lanes"),
        ("detprune_lanes.network.checkpoints", "detprune.lanes.network.checkpoints"),
        ("detprune_x_y.z_z", "detprune.x_y.z_z"),
    ],
)
def test_every_module_logs_below_detprune(module: str, name: str) -> None:
    assert logger(module).name == name


def test_no_module_makes_a_logger_in_another_way() -> None:
    assert len(SOURCES) > 100
    for file in SOURCES:
        if file == ROOT / "detprune/loggers.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            if called.endswith("getLogger"):
                assert ast.literal_eval(node.args[0]) in FOREIGN, file
            # the root logger's own functions
            assert called not in {f"logging.{m}" for m in ("info", "warning", "error")}, file
            if called == "logger":
                name = ast.unparse(node.args[0])
                assert name in ("__name__", "'detprune'"), file


@pytest.mark.parametrize("module", ["detprune_lanes.network.checkpoints", "detprune.run.pipeline"])
def test_what_a_module_logs_is_in_run_log(tmp_path: Path, module: str) -> None:
    there = list(
        logging.getLogger("detprune").handlers
    )  # other tests may have run the command line
    with RunDirectory(tmp_path).log_file():
        logger(module).warning("heard of %s", module)
    assert f"WARNING heard of {module}" in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert logging.getLogger("detprune").handlers == there
    assert logging.getLogger("detprune_lanes").handlers == []
