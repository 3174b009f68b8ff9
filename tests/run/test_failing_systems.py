"""Full disks, and folders that became read-only or went away: a message, and the way out."""

import errno
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

from damaged import said
from detprune.errors import InputError, StorageError
from detprune.files.atomic import atomic
from detprune.files.storage import plain_refusals
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
