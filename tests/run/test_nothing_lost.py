"""Kills, locks and folders: what a run did not make stays, and what it replaces is there until it is whole."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY

from command_line import started as process_of
from command_line import wait_for
from detprune.errors import InputError, StorageError
from detprune.files.locks import Holder, hold
from detprune.files.temporaries import temporary_name
from detprune.run.claim import absolute, located
from detprune.run.cli import main as cli
from detprune.run.studies.planned import Runs

ONE_STAGE = ("--set", "stages.constrained.epochs=0", "--set", "stages.retrain.epochs=0")
DEAD = 2**22 + 1  # above the largest process number of Linux


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts detprune in processes that are killed at the end."""
    with ExitStack() as processes:

        def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
            return processes.enter_context(process_of(*arguments, cwd=tmp_path, **options))

        yield start


def file_of(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}), encoding="utf-8")
    return path


def an_earlier_run(path: Path, text: str = "weeks of work") -> None:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    (path / "pruned.pt").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", ["..", ".", "...", "a/b", "/tmp/x", "a\\b", ""])
def test_a_name_is_no_path(tmp_path: Path, here: Any, name: str) -> None:
    before = file_of(tmp_path, name=name).read_text()
    code, said = here("run", "tiny.yaml")
    assert (code, [p.name for p in tmp_path.iterdir()]) == (2, ["tiny.yaml"])
    assert "name" in said
    assert (tmp_path / "tiny.yaml").read_text() == before


@pytest.mark.parametrize(
    "out", ["new/../theirs", "link", "link/../theirs", ".", "new/..", "theirs/new/..", "theirs/."]
)
@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"]])
def test_what_the_run_did_not_make_stays(
    tmp_path: Path, here: Any, out: str, flags: list[str]
) -> None:
    file_of(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("all I have")
    (tmp_path / "link").symlink_to(theirs)
    before = sorted(map(str, tmp_path.rglob("*")))
    code, _ = here("run", "tiny.yaml", "--out", out, *flags, "--set", "model.weights=none.pt")
    assert code == 2
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.parametrize("out", ["a/b/c", "new/../fresh", "link", "empty", "empty/inner"])
def test_bad_input_takes_away_what_the_run_made(tmp_path: Path, here: Any, out: str) -> None:
    file_of(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    before = sorted(map(str, tmp_path.rglob("*")))
    code, said = here("run", "tiny.yaml", "--out", out, "--set", "model.weights=none.pt")
    assert code == 2
    assert "none.pt" in said
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_file_that_may_not_be_read_takes_away_what_the_run_made(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_of(tmp_path, distillation={"weight": 0.5, "teacher": "locked/teacher.pt"})
    an_earlier_run(tmp_path / "run")

    def refused(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "locked/teacher.pt")

    monkeypatch.setattr("detprune_lightning.task.check_teacher", refused)
    before = sorted(map(str, tmp_path.rglob("*")))
    for out, flags in (("new", []), ("run", ["--overwrite"])):
        code, said = here("run", "tiny.yaml", "--out", out, *flags)
        assert code == 2
        assert "locked/teacher.pt: Permission denied" in said
        assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.usefixtures("no_training")
def test_overwriting_through_a_link_replaces_what_it_points_to(tmp_path: Path, here: Any) -> None:
    an_earlier_run(tmp_path / "disk" / "run")
    (tmp_path / "link").symlink_to("disk/run")
    assert here("run", file_of(tmp_path), "--out", "link", "--overwrite")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert torch.load(tmp_path / "disk" / "run" / "pruned.pt")["new"] == 1
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["run"]


@pytest.mark.usefixtures("no_training")
def test_a_run_lies_in_one_place_where_the_shell_left_the_tilde(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert here("run", file_of(tmp_path), "--out=~/x")[0] == 0
    assert (tmp_path / "home" / "x" / "pruned.pt").is_file()
    assert not (tmp_path / "~").exists()
    assert located(Path("~/x")) == absolute(Path("~/x")) == tmp_path / "home" / "x"
    code, said = here("run", "tiny.yaml", "--out=~nobody_of_that_name/x")
    assert code == 2
    assert "name another folder with --out" in said


def test_the_working_directory_is_not_set_aside(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_earlier_run(tmp_path / "run")
    recipe = file_of(tmp_path)
    monkeypatch.chdir(tmp_path / "run")
    code, said = here("run", recipe, "--out", ".", "--overwrite")
    assert code == 2
    assert "is the working directory or holds it" in said


# ---------------------------------------------------------------- runs that are replaced


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("kills", [1, 2])
def test_a_finished_run_is_kept_until_the_one_in_its_place_is_whole(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    run, recipe = tmp_path / "run", file_of(tmp_path)
    an_earlier_run(run)
    for _ in range(kills):
        with monkeypatch.context() as patched:
            patched.setattr("detprune.run.cli.run._run", lambda *_: sys.exit(137))
            code, said = here("run", recipe, "--out", run, "--overwrite")
        assert code == 137
        kept = f"the run that was to be replaced is kept in {tmp_path}/.run.replaced"
        assert "".join(kept.split()) in "".join(said.split())  # the terminal breaks lines
        assert (tmp_path / ".run.replaced" / "pruned.pt").read_text() == "weeks of work"
    code, said = here("run", run, "--resume")
    assert code == 0
    assert ".run.replaced is kept until the run in its place is finished" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "tiny.yaml"]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", [".run.replaced", ".run.replaced.7"])
@pytest.mark.parametrize("flags", [[], ["--overwrite"]])
def test_a_folder_that_only_has_such_a_name_is_left_alone(
    tmp_path: Path, here: Any, name: str, flags: list[str]
) -> None:
    an_earlier_run(tmp_path / name)
    if flags:
        an_earlier_run(tmp_path / "run")
    code, _ = here("run", file_of(tmp_path), "--out", tmp_path / "run", *flags)
    assert code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "run", "tiny.yaml"]
    assert (tmp_path / name / "pruned.pt").read_text() == "weeks of work"


def test_killed_between_setting_aside_and_beginning(tmp_path: Path, here: Any) -> None:
    an_earlier_run(tmp_path / ".run.replaced")
    code, said = here("run", "run", "--resume")
    assert code == 2
    assert ".run.replaced: rename it to have it back" in said


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize("flags", [["--resume"], ["--overwrite"], []])
def test_a_second_process_is_refused_with_the_number_of_the_first(
    tmp_path: Path, here: Any, flags: list[str]
) -> None:
    an_earlier_run(tmp_path / "run")
    recipe = file_of(tmp_path)
    with hold(tmp_path / "run"):
        code, said = here("run", recipe, "--out", "run", *flags)
        assert code == 2
        assert f"run is in use by process {os.getpid()} on " in said
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["pruned.pt", "recipe.yaml"]


def test_a_lock_may_be_taken_over_by_whoever_may_write_the_folder(tmp_path: Path) -> None:
    """A killed run leaves it; in a group's folder another user resumes the run."""
    before = os.umask(0o002)
    try:
        with hold(tmp_path):
            assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("user", "way_out"), [(1, "another user .*chown -R"), (0, "write-protected: chmod -R u.w ")]
)
def test_a_lock_that_may_not_be_opened_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, way_out: str
) -> None:
    """The folder was given to a user, the files in it were not: ``chown`` without -R; or a copy from a CD."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / ".lock").touch()
    owner = (tmp_path / ".lock").stat().st_uid
    monkeypatch.setattr("detprune.files.locks.os.open", refuse)
    monkeypatch.setattr("detprune.files.locks.os.geteuid", lambda: owner + user)
    with pytest.raises(InputError, match=rf"\.lock: Permission denied; .*{way_out}"):
        hold(tmp_path).__enter__()


def test_a_lock_that_cannot_be_deleted_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that becomes read-only: what could not be written is said, and that --resume goes on."""

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        with pytest.raises(StorageError, match=r"cannot write last\.ckpt"), hold(tmp_path):
            raise StorageError("cannot write last.ckpt")
    assert (tmp_path / ".lock").read_bytes() == b""
    with hold(tmp_path):
        assert Holder.read(tmp_path) == Holder.this()
    assert list(tmp_path.iterdir()) == []


def test_studies_hold_their_folder(tmp_path: Path, here: Any) -> None:
    a_study(tmp_path)
    steps = {"name": "p", "recipe": "tiny.yaml", "rates": [2]}
    (tmp_path / "steps.yaml").write_text(yaml.safe_dump(steps))
    (tmp_path / "out").mkdir()
    with hold(tmp_path / "out"):
        for command in (("study", "study.yaml"), ("progressive", "steps.yaml")):
            code, said = here(*command, "--out", "out")
            assert code == 2
            assert f"out is in use by process {os.getpid()}" in said


def test_a_lock_dies_with_its_process_and_not_with_its_children(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom detprune.files.locks import hold\n"
        "with hold(Path(sys.argv[1])):\n"
        "    if os.fork() == 0: os.write(1, b'child\\n'); time.sleep(60); os._exit(0)\n"
        "    os.write(1, b'held\\n'); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    # once the child runs, it has let go of the lock
    assert {process.stdout.readline() for _ in range(2)} == {"held\n", "child\n"}
    found = Holder.read(tmp_path)
    assert found is not None
    assert found.pid == process.pid
    with (
        pytest.raises(cli.InputError, match=f"process {process.pid} on .* kill {process.pid}"),
        hold(tmp_path),
    ):
        pass
    process.send_signal(signal.SIGSTOP)  # as ctrl-Z does; a mere `kill` would then wait for ever
    os.waitpid(process.pid, os.WUNTRACED)
    with (
        pytest.raises(cli.InputError, match=f"is suspended .* kill -CONT {process.pid}"),
        hold(tmp_path),
    ):
        pass
    process.kill()
    process.wait()
    with hold(tmp_path):  # its child, as a loader's worker would, lives on
        assert Holder.read(tmp_path) == Holder.this()
    os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "refused"),
    [
        (None, ""),
        ({"pid": DEAD}, ""),
        ({"started": "another boot+1"}, ""),  # the number is used again
        ({}, "is in use by process"),
        ({"host": "elsewhere"}, "on elsewhere; .* if it is dead there, delete .*lock"),
        ({"host": "elsewhere", "pid": DEAD}, "on elsewhere"),
    ],
)
def test_without_locks_of_the_file_system_what_the_file_says_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    holder: dict[str, Any] | None,
    refused: str,
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    this = Holder.this()
    if holder is not None:
        record = {"pid": this.pid, "host": this.host, "started": this.started, **holder}
        (tmp_path / ".lock").write_text(json.dumps(record))
    if refused:
        with pytest.raises(cli.InputError, match=refused), hold(tmp_path):
            pass
    else:
        with hold(tmp_path):
            assert Holder.read(tmp_path) == this


# ---------------------------------------------------------------- temporary files


@pytest.mark.usefixtures("no_training")
def test_temporary_files_of_killed_writers_are_swept(tmp_path: Path, here: Any) -> None:
    run = tmp_path / "run"
    an_earlier_run(run)
    (run / "checkpoints" / "dense").mkdir(parents=True)
    alive = subprocess.Popen(["sleep", "60"])
    try:
        young = run / "checkpoints" / f".last.ckpt.{alive.pid}.tmp"
        reused = run / f".pruned.pt.{alive.pid}.tmp"
        earlier = [
            run / "checkpoints" / "dense" / f".last.ckpt.{DEAD}.tmp",
            run / temporary_name(run / "metrics.jsonl").name.replace(str(os.getpid()), str(DEAD)),
            run / f".pruned.pt.{DEAD}@00000000.tmp",  # of another machine
            reused,
        ]
        mine = [run / ".notes.tmp", run / "notes.12.tmp", run / ".notes.12a.tmp", young]
        for file in (*earlier, *mine):
            file.write_text("half")
        os.utime(reused, (1, 1))
        assert here("run", run, "--resume")[0] == 0
        assert not [file for file in earlier if file.exists()]
        assert all(file.exists() for file in mine)
    finally:
        alive.kill()
        alive.wait()


# ---------------------------------------------------------------- signals


@pytest.mark.slow
def test_a_signal_ends_a_stage_with_its_own_exit_code_and_nothing_is_lost(
    tmp_path: Path, started: Any
) -> None:
    run = tmp_path / "run"
    command = ("run", file_of(tmp_path), "--out", run, "--resume", *ONE_STAGE)
    for number, code, framework in (
        (signal.SIGTERM, 143, None),
        (signal.SIGINT, 130, "lightning"),
        (signal.SIGHUP, 129, "lightning"),
    ):
        process = started(*command, "--set", "stages.dense.epochs=2000", preloaded=framework)
        wait_for((run / "checkpoints" / "dense" / "last.ckpt").exists, process)
        process.send_signal(number)
        said = process.communicate()[0]
        assert process.returncode == code, said
        assert "interrupted; continue with: detprune run" in said
        assert not (run / ".lock").exists()
        assert not list(run.rglob("*.tmp"))
        shutil.rmtree(run)


def a_study(folder: Path, **settings: Any) -> Path:
    file_of(folder)
    study = {"name": "s", "recipe": "tiny.yaml", "methods": {"m": {"method": "magnitude"}}}
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**study, "rates": [2], "settings": settings}))
    return file


@pytest.mark.slow
def test_a_study_that_is_ended_ends_its_runs(tmp_path: Path, started: Any) -> None:
    dense = tmp_path / "out #1" / "dense_0"
    file = a_study(tmp_path, **{"stages.dense.epochs": 2000})
    process = started("study", file, "--out", dense.parent, preloaded=None)
    wait_for((dense / "checkpoints" / "dense" / "last.ckpt").exists, process)
    process.terminate()
    said = process.communicate()[0]
    assert process.returncode == 143, said
    assert "dense_0: interrupted (exit code 143)" in said
    with hold(dense):  # no run goes on without its study
        pass


def test_a_study_whose_folder_becomes_read_only(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path / "out" / "results.json"))

    monkeypatch.setattr("detprune.run.studies.planned.Runs._call", refused)
    ended, said = here("study", a_study(tmp_path), "--out", "out")
    assert ended == 1, said
    assert "results.json: Permission denied; let the folder be written" in " ".join(said.split())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (143, "dense_0: interrupted (exit code 143)"),
        (-9, "dense_0: interrupted (exit code -9)"),
        (1, "dense_0: failed with exit code 1"),
        (0, "dense_0: failed with exit code 0"),  # it left no summary
    ],
)
def test_a_study_counts_a_run_that_was_ended_as_interrupted(
    tmp_path: Path, here: Any, monkeypatch: pytest.MonkeyPatch, code: int, text: str
) -> None:
    monkeypatch.setattr("detprune.run.studies.planned.Runs._call", lambda *_, **__: code)
    ended, said = here("study", a_study(tmp_path), "--out", "out")
    assert ended == 1
    assert text in said


@pytest.mark.usefixtures("no_training")
def test_what_a_replaced_run_did_not_write_is_kept(tmp_path: Path, here: Any) -> None:
    run = tmp_path / "run"
    an_earlier_run(run)
    (run / "thesis.tex").write_text("years of work")
    code, said = here("run", file_of(tmp_path), "--out", run, "--overwrite")
    assert code == 0
    assert "holds what no run writes: thesis.tex" in " ".join(said.split())
    assert (tmp_path / ".run.replaced" / "thesis.tex").read_text() == "years of work"
    assert not (run / "thesis.tex").exists()


class Planned:
    """A plan of a study, and what its runs are told."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.arguments, self.finished = folder, ["run", "recipe.yaml"], False
        self.calls: list[bool] = []

    def runs(self, monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> Runs:
        def call(_: Runs, command: list[str], **options: Any) -> int:
            self.calls.append("--resume" in command)
            code = codes.pop(0)
            self.finished = code == 0
            return code

        monkeypatch.setattr(Runs, "_call", call)
        return Runs(1)


def end_while_waiting(
    monkeypatch: pytest.MonkeyPatch, lock: ExitStack, plan: Planned, finished: bool
) -> None:
    def sleep(_: float) -> None:
        lock.close()
        (plan.folder / "recipe.yaml").touch()
        plan.finished = finished

    monkeypatch.setattr("detprune.run.studies.planned.time.sleep", sleep)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_of_a_study_that_was_killed_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    plan = Planned(tmp_path / "slr")
    plan.folder.mkdir()
    runs = plan.runs(monkeypatch, [0])
    with ExitStack() as lock:
        lock.enter_context(hold(plan.folder))
        end_while_waiting(monkeypatch, lock, plan, finished)
        runs.all([plan])
    assert plan.finished
    assert plan.calls == ([] if finished else [True])


def test_a_run_that_began_meanwhile_in_another_process_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Planned(tmp_path / "slr")
    runs = plan.runs(monkeypatch, [2, 0])
    with ExitStack() as lock:
        call = Runs._call

        def refused(
            *given: Any, **options: Any
        ) -> int:  # the other process was importing until now
            if not plan.calls:
                plan.folder.mkdir()
                lock.enter_context(hold(plan.folder))
            return call(*given, **options)

        monkeypatch.setattr(Runs, "_call", refused)
        end_while_waiting(monkeypatch, lock, plan, finished=False)
        runs.all([plan])
    assert plan.calls == [False, True]
    assert plan.finished
