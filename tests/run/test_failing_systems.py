"""Full disks, folders that became read-only, and places where nothing can be written: a message, and the way out."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from tiny_recipe import TINY

from damaged import run_here, said
from detprune.errors import InputError, StorageError
from detprune.files import check_output_path
from detprune.files.atomic import atomic
from detprune.files.storage import plain_refusals
from detprune.run.claim import set_aside
from detprune.run.directory import RunDirectory
from detprune.run.records import StageResult

Called = Callable[..., tuple[int, str]]


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """No file may become larger: what a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    stages = {
        stage: {**spec, "epochs": int(stage == "dense")} for stage, spec in TINY["stages"].items()
    }
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    data = {**TINY["data"], "train_limit": 32, "test_limit": 10}
    path.write_text(yaml.safe_dump({**TINY, "data": data, "stages": stages}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(recipe: Path) -> Path:
    return run_here(yaml.safe_load(recipe.read_text(encoding="utf-8")), recipe.parent)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    return lambda *arguments: said(list(arguments), monkeypatch, capsys)


# ---------------------------------------------------------------- full disks


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2_500, 60_000, 1_200_000])
def test_a_disk_that_is_full_in_the_middle_of_a_run(
    recipe: Path, tmp_path: Path, call: Called, limit: int
) -> None:
    """The log, TensorBoard's file and a checkpoint are what does not fit."""
    run = tmp_path / "run"
    with file_size(limit):
        code, error = call("run", recipe, "--out", run)
    assert code == 1, error
    assert "cannot write" in error
    assert "raise the limit of file sizes (ulimit -f)" in error
    assert f"continue with detprune run {run} --resume" in error
    assert "Traceback" not in error
    assert not list(run.rglob("*.tmp"))
    assert not (run / "summary.json").exists()
    assert not (run / ".lock").exists()


@pytest.mark.slow
def test_after_room_was_made_the_run_goes_on(
    finished: Path, recipe: Path, tmp_path: Path, call: Called
) -> None:
    run = tmp_path / "run"
    with file_size(1_200_000):
        assert call("run", recipe, "--out", run)[0] == 1
    assert call("run", run, "--resume")[0] == 0
    expected, found = (torch.load(path / "pruned.pt") for path in (finished, run))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_disk_that_is_full_before_the_run_begins(
    recipe: Path, tmp_path: Path, call: Called
) -> None:
    with file_size(100):
        code, error = call("run", recipe, "--out", tmp_path / "run")
    assert code == 2
    assert "cannot write into the run directory" in error
    assert list(tmp_path.iterdir()) == []


def test_results_that_would_lie_below_a_file(recipe: Path, tmp_path: Path, call: Called) -> None:
    file, study = tmp_path / "runs", tmp_path / "study.yaml"
    file.write_text("mine")
    study.write_text(f"name: s\nrecipe: {recipe}\nmethods: {{a: {{method: admm}}}}\nrates: [2]\n")
    for command, given in (("run", recipe), ("study", study)):
        for out in (file / "new", file / "new" / "deeper"):
            code, error = call(command, given, "--out", out)
            assert code == 2
            assert f"{file} is no folder; choose another" in error
    assert file.read_text() == "mine"


def test_a_file_of_another_user_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that root began, whose folder was given to the user without its files."""
    file = tmp_path / "run.log"
    file.touch()
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    with pytest.raises(InputError, match="denied; give the permission to, or"), plain_refusals():
        raise denied
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
    other = r"run\.log: Permission denied; it belongs to another user: .*\(chown -R.* or name another place"
    with pytest.raises(InputError, match=other), plain_refusals():
        raise denied


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write .*recipe\.yaml: No space left on device"),
        plain_refusals(),
        atomic(tmp_path / "recipe.yaml"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_command_that_has_nothing_to_continue(finished: Path, call: Called) -> None:
    with file_size(10):
        code, error = call("report", finished)
    assert code == 1, error
    assert "cannot write" in error
    assert "File too large; raise the limit of file sizes (ulimit -f)" in error


def test_the_copy_is_named_and_not_its_source(tmp_path: Path) -> None:
    source, copy = tmp_path / "pruned.pt", tmp_path / "copy.pt"
    source.write_bytes(bytes(9000))
    with pytest.raises(StorageError) as caught, plain_refusals(), file_size(1):
        shutil.copyfile(source, copy)
    assert f"cannot write {copy}: File too large" in str(caught.value)
    assert str(source) not in str(caught.value)


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EACCES, "see that the folder is there and may be written"),
        (errno.EFBIG, "raise the limit of file sizes (ulimit -f), or use another disk"),
    ],
)
def test_the_way_out_of_a_run_fits_the_cause(tmp_path: Path, number: int, way_out: str) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(StorageError) as caught, run.storage_errors():
        raise OSError(number, os.strerror(number), str(tmp_path / "progress.json"))
    assert f"; {way_out}, then continue with detprune run {tmp_path} --resume" in str(caught.value)


def test_what_stands_in_a_files_place_is_named(tmp_path: Path) -> None:
    written, taken = tmp_path / ".last.pt.tmp", tmp_path / "last.pt"
    written.touch()
    taken.mkdir()
    for act in (lambda: os.replace(written, taken), lambda: taken.write_bytes(b"")):
        with (
            pytest.raises(StorageError, match=rf"cannot write {taken}: Is a directory; move away"),
            RunDirectory(tmp_path).storage_errors(),
        ):
            act()
    with pytest.raises(IsADirectoryError), RunDirectory(tmp_path / "run").storage_errors():
        taken.read_bytes()  # of the user's own, not of the run


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "let the file system be written, or use another place"),
        (errno.EFBIG, "raise the limit of file sizes (ulimit -f), or use another disk"),
    ],
)
def test_the_way_out_fits_the_cause(number: int, way_out: str) -> None:
    with pytest.raises(StorageError) as caught, plain_refusals():
        raise OSError(number, os.strerror(number), "report.html")
    assert (
        str(caught.value)
        == f"cannot write report.html: {os.strerror(number)}; {way_out}, then call the command again"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("name", ["progress.json", "metrics.jsonl", "checkpoints/dense.pt"])
def test_a_run_folder_that_becomes_read_only_or_full(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Called,
    number: int,
    name: str,
) -> None:
    run = tmp_path / "run"

    def work(_adapter: object, _recipe: object, directory: RunDirectory) -> None:
        with directory.storage_errors():
            file = directory.path / name
            if name == "progress.json":
                directory.finish("dense", StageResult(metric=1.0, metrics={}, seconds=1.0))
            raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr("detprune.run.cli.run._run", work)
    code, error = call("run", recipe, "--out", run)
    assert code == 1, error
    assert f"{run / name}: {os.strerror(number)}" in error
    assert f"continue with detprune run {run} --resume" in error


def test_a_log_that_cannot_be_written_stops_no_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Called
) -> None:
    def work(_adapter: object, _recipe: object, run: RunDirectory) -> None:
        from detprune.run.directory import LOGGER

        with file_size(1):
            LOGGER.warning("first")
            LOGGER.warning("second")

    monkeypatch.setattr("detprune.run.cli.run._run", work)
    code, error = call("run", recipe, "--out", tmp_path / "run")
    assert code == 0
    assert "Traceback" not in error
    assert "Logging error" not in error


# ---------------------------------------------------------------- odd places


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


# ---------------------------------------------------------------- folders that go away


@pytest.mark.parametrize(
    "take_away", [shutil.rmtree, lambda run: run.rename(run.with_name("moved"))]
)
@pytest.mark.parametrize("made_anew", [False, True])
@pytest.mark.parametrize("by_name", [str, os.fsencode])  # TensorBoard's errors name bytes
def test_a_run_folder_that_is_taken_away_while_the_run_goes_on(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Called,
    take_away: Callable[[Path], object],
    made_anew: bool,
    by_name: Callable[[str], str | bytes],
) -> None:
    run = tmp_path / "run"

    def work(_adapter: object, _recipe: object, directory: RunDirectory) -> None:
        with directory.storage_errors():
            take_away(run)
            if made_anew:  # as Ultralytics does
                directory.checkpoints.mkdir(parents=True)
                directory.finish("dense", StageResult(metric=1.0, metrics={}, seconds=1.0))
            file = by_name(str(run / "tensorboard" / "events"))
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)

    monkeypatch.setattr("detprune.run.cli.run._run", work)
    code, error = call("run", recipe, "--out", run)
    assert code == 1, error
    assert f"{run} was removed, moved or emptied while the run was going on" in error
    assert f"mount it and continue with detprune run {run} --resume; if it was moved" in error
    assert "else start the run again with its recipe" in error
    assert not (run / "progress.json").exists()


def test_a_shortage_behind_an_error_of_the_framework() -> None:
    hiding = RuntimeError("Please call `iter(combined_loader)` first.")
    hiding.__context__ = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    with pytest.raises(StorageError, match=r"Too many open files.*ulimit -n"), plain_refusals():
        raise hiding


def test_a_full_disk_of_temporary_files_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    full = errno.ENOSPC, os.strerror(errno.ENOSPC)
    for error in (OSError(*full), OSError(*full, str(tmp_path / "a.onnx"))):
        with (
            pytest.raises(StorageError, match=f"make room in {tmp_path}.*TMPDIR"),
            plain_refusals(),
        ):
            raise error
    with pytest.raises(StorageError, match="; make room, then"), plain_refusals():
        raise OSError(*full, "/elsewhere/a.onnx")


def test_a_locale_without_the_characters_of_a_name(recipe: Path, tmp_path: Path) -> None:
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "detprune", "run", str(recipe), "--out", str(tmp_path / "größe")],
        capture_output=True,
        text=True,
        env={**os.environ, **ascii_alone},
        check=False,
    )
    assert done.returncode == 2
    assert "the locale's encoding, ascii, lacks; set PYTHONUTF8=1" in " ".join(done.stderr.split())
