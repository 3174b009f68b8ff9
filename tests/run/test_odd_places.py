"""Places where nothing can be written, or where something else stands: refused before anything is done."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from damaged import said
from detprune.errors import InputError
from detprune.files import check_output_path
from detprune.files.atomic import atomic
from detprune.run.claim import set_aside

Called = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    return lambda *arguments: said(list(arguments), monkeypatch, capsys)


def too_long(folder: Path) -> Path:
    return folder / ("x" * 256)


def too_deep(folder: Path) -> Path:
    return folder / "/".join(["d" * 200] * 25)


def below_a_file(folder: Path) -> Path:
    return folder / "file" / "x"


def a_file(folder: Path) -> Path:
    return folder / "file"


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def below_proc(_: Path) -> Path:
    return Path("/proc/self/x")


PLACES = (too_long, too_deep, below_a_file, a_file, a_pipe, a_loop, below_proc)
IDS = [place.__name__ for place in PLACES]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("place", PLACES, ids=IDS)
@pytest.mark.parametrize(
    "command", ["run", "overwrite", "resume", "suggest", "study", "progressive", "report", "export"]
)
def test_odd_places_are_refused_before_anything_is_done(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Called,
    command: str,
    place: Callable[[Path], Path],
) -> None:
    def scanned(*_: object) -> None:
        raise AssertionError("the scan began")

    monkeypatch.setattr("detprune.run.suggestion.suggest_plan", scanned)
    (tmp_path / "file").write_text("mine")
    out = place(tmp_path)
    before = sorted(map(str, tmp_path.rglob("*")))
    study = recipe.parent / f"{command}.yaml"
    varied = {"name": "s", "recipe": "tiny.yaml", "rates": [2]}
    methods = {"methods": {"m": {"method": "magnitude"}}} if command == "study" else {}
    study.write_text(yaml.safe_dump({**varied, **methods}), encoding="utf-8")
    code, error = call(
        *{
            "run": ["run", recipe, "--out", out],
            "overwrite": ["run", recipe, "--out", out, "--overwrite"],
            "resume": ["run", out, "--resume"],
            "suggest": ["suggest", recipe, "--out", out],
            "study": ["study", study, "--out", out],
            "progressive": ["progressive", study, "--out", out],
            "report": ["report", out],
            "export": ["export", out],
        }[command]
    )
    assert code == 2, error
    assert "error: " in error
    assert sorted(map(str, tmp_path.rglob("*"))) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("s3://bucket/it", "s3://bucket/it is an address, but results are written on this machine"),
        ("me@server:/data/it", "me@server:/data/it is an address"),
        ("me@server:it", "me@server:it is an address"),
        (r"C:\Users\me\it", r"C:\Users\me\it is a path of Windows"),
        ("D:/it", "under WSL /mnt/d/it"),
        (r"\\server\share\it", r"\\server\share\it is a share of Windows"),
    ],
)
@pytest.mark.parametrize(
    "command", ["run", "overwrite", "suggest", "study", "progressive", "init", "profile", "data"]
)
def test_an_address_is_no_place_for_results(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Called,
    command: str,
    out: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    study = recipe.parent / f"{command}.yaml"
    varied = {"name": "s", "recipe": "tiny.yaml", "rates": [2]}
    methods = {"methods": {"m": {"method": "magnitude"}}} if command == "study" else {}
    study.write_text(yaml.safe_dump({**varied, **methods}), encoding="utf-8")
    before = sorted(map(str, tmp_path.rglob("*")))
    code, error = call(
        *{
            "run": ["run", recipe, "--out", out],
            "overwrite": ["run", recipe, "--out", out, "--overwrite"],
            "suggest": ["suggest", recipe, "--out", f"{out}.yaml"],
            "study": ["study", study, "--out", out],
            "progressive": ["progressive", study, "--out", out],
            "init": ["init", "best.pt", "--out", f"{out}.yaml"],
            "profile": ["profile", recipe, "--out", f"{out}.yaml"],
            "data": ["data", "roads", out],
        }[command]
    )
    assert code == 2, error
    assert said in error.replace("it.yaml", "it")
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("command", ["suggest", "init", "profile", "evaluate lanes"])
def test_a_folder_is_no_place_for_a_file(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Called, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    option = "--submission" if command == "evaluate lanes" else "--out"
    code, error = call(*command.split(), recipe, option, "plans/")
    said = " ".join(error.replace("│", " ").split())
    assert code == 2
    assert "plans/ is a folder by the slash at its end" in said
    assert "plans/name" in said
    assert not (tmp_path / "plans").exists()


def test_a_working_directory_that_is_gone(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Called
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, error = call("run", recipe, "--out", tmp_path / "run")
    assert code == 2, error
    assert "the working directory was deleted" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("none/plan.yaml", "there is no folder"),
        ("link.yaml", "there is no folder"),
        ("there.yaml", "exists already"),
        ("there.yaml/plan.yaml", "there.yaml is no folder"),
        ("y" * 252 + ".yaml", "File name too long"),
        ("folder", "which is a folder"),
    ],
)
def test_a_plan_that_could_not_be_written_is_refused_before_the_scan(
    recipe: Path, tmp_path: Path, call: Called, name: str, text: str
) -> None:
    (tmp_path / "link.yaml").symlink_to("none/plan.yaml")
    (tmp_path / "there.yaml").write_text("mine")
    (tmp_path / "folder").mkdir()
    code, error = call("suggest", recipe, "--out", tmp_path / name)
    assert code == 2
    assert text in error.replace("No such file or directory", "there is no folder")
    assert (tmp_path / "there.yaml").read_text() == "mine"


def test_no_pipe_and_no_folder_is_replaced_by_a_file(tmp_path: Path) -> None:
    """As root, a device such as /dev/null would be too, for the whole machine."""
    pipe, folder = a_pipe(tmp_path), tmp_path / "folder"
    folder.mkdir()
    for place in (pipe, folder):
        with pytest.raises(InputError, match=r"is there; move it away"), atomic(place) as new:
            new.write_text("x")
        with pytest.raises(InputError, match=r"which is a (named pipe|folder)"):
            check_output_path(place, "--out")
    assert pipe.is_fifo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_folder_that_is_made_is_checked_where_it_would_be(tmp_path: Path) -> None:
    check_output_path(tmp_path / "a/b/c.onnx", "--out", makes_folder=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file/a/c.onnx", Path("/proc/self/a/c.onnx")):
        with pytest.raises(InputError, match="choose another --out"):
            check_output_path(place, "--out", makes_folder=True)


def test_a_parent_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    assert set_aside(tmp_path / "run") == []


@pytest.mark.usefixtures("no_training")
def test_a_name_too_long_to_be_set_aside_stays_as_it_was(
    recipe: Path, tmp_path: Path, call: Called
) -> None:
    run = tmp_path / ("y" * 250)
    assert call("run", recipe, "--out", run)[0] == 0
    before = sorted(p.name for p in run.iterdir())
    code, error = call("run", recipe, "--out", run, "--overwrite")
    assert code == 2
    assert "cannot be set aside" in error
    assert sorted(p.name for p in run.iterdir()) == before
    assert json.loads((run / "summary.json").read_text()) == {}
