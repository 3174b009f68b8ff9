"""``kill -9`` of runs that were to replace a finished one, in processes of their own."""

import json
from functools import partial
from pathlib import Path

import pytest
import yaml
from tiny_recipe import TINY

from command_line import started, wait_for
from damaged import said
from detprune.files.locks import Holder


@pytest.mark.slow
def test_nothing_of_a_finished_run_is_lost_and_nothing_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {name: {**spec, "epochs": 0} for name, spec in TINY["stages"].items()}
    stages["dense"]["epochs"] = 1
    data = {**TINY["data"], "train_limit": 32, "test_limit": 10}
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump({**TINY, "data": data, "stages": stages}), encoding="utf-8")

    def call(*arguments: object) -> tuple[int, str]:
        return said(list(arguments), monkeypatch, capsys)

    assert call("run", recipe, "--out", run)[0] == 0
    before = contents(run)
    # the second run overwrites what was killed of the first
    for lines, aside in ((1, ".run.replaced"), (2, ".run.replaced.2")):
        arguments = (
            "run",
            recipe,
            "--out",
            run,
            "--overwrite",
            "--set",
            "stages.dense.epochs=2000",
        )
        with started(*arguments, cwd=tmp_path) as process:
            wait_for((tmp_path / aside).exists, process)
            wait_for(partial(trained, run, process.pid, lines), process)
            process.kill()
            process.wait()
        assert contents(tmp_path / ".run.replaced") == before
        assert not (run / "summary.json").exists()
    assert (tmp_path / ".run.replaced.2/recipe.yaml").exists()
    monkeypatch.setattr("detprune.run.report.write_report", lambda _: None)
    assert call("run", recipe, "--out", run, "--overwrite")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "tiny.yaml"]
    assert json.loads((run / "summary.json").read_text())["epochs"]["dense"] == 1


def contents(run: Path) -> dict[str, bytes]:
    names = ("recipe.yaml", "summary.json", "progress.json", "metrics.jsonl", "pruned.pt")
    files = [*(run / name for name in names), *(run / "checkpoints").rglob("*.*t")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def trained(run: Path, pid: int, lines: int) -> bool:
    """Whether the process has the run, and that many events are logged."""
    holder, events = Holder.read(run), run / "metrics.jsonl"
    if holder is None or holder.pid != pid or not events.exists():
        return False
    return len(events.read_text(encoding="utf-8").splitlines()) > lines
