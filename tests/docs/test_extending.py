"""The adapter of docs/extending/adapter.md, installed as a package would be: listed, run, resumed, reported."""

import json
from pathlib import Path

import pytest
import yaml
from doc_pages import Block, blocks

from command_line import detprune_here

pytestmark = pytest.mark.slow

PAGE = "docs/extending/adapter.md"


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with the page's module and its entry point; returns the page's recipe."""
    site = tmp_path / "site"
    info = site / "my_adapter-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_adapter.py").write_text(only("python").code, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_adapter\nVersion: 1.0\n")
    entry = 'spirals = "my_adapter:adapter"'
    assert f'[project.entry-points."detprune.adapters"]\n{entry}' in only("toml").code
    (info / "entry_points.txt").write_text("[detprune.adapters]\nspirals = my_adapter:adapter\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(only("yaml").code, encoding="utf-8")
    return recipe


def only(language: str) -> Block:
    (block,) = (block for block in blocks(language) if block.page == PAGE)
    return block


def test_the_adapter_runs(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detprune_here("run", adapter, monkeypatch=monkeypatch) == 0
    run = Path("runs/my_spirals")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["dense"] > 0.9
    assert summary["final"] > 0.85
    assert summary["compression"] == pytest.approx(4, rel=0.01)
    assert summary["verified"]["metric"] == pytest.approx(summary["final"])
    assert (run / "report.html").is_file()
    assert "two spirals" in (run / "report.html").read_text(encoding="utf-8")
    # finished stages are taken up
    (run / "summary.json").unlink()
    assert detprune_here("run", run, "--resume", monkeypatch=monkeypatch) == 0
    again = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert again["final"] == summary["final"]


def test_the_adapter_is_listed_and_its_recipe_checked(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detprune_here("list", monkeypatch=monkeypatch) == 0
    assert "small networks on two spirals" in capsys.readouterr().out
    assert detprune_here("validate", adapter, "--set", "width=8", monkeypatch=monkeypatch) == 0
    assert yaml.safe_load(capsys.readouterr().out)["stages"]["dense"] == 30
    assert detprune_here("validate", adapter, "--set", "widht=8", monkeypatch=monkeypatch) == 2
    assert "did you mean 'width'?" in capsys.readouterr().err
