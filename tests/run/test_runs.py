"""Which GPU and how many threads a run of a study is given."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detprune.run.studies.planned import Runs


@pytest.mark.parametrize(
    ("visible", "jobs", "expected"),
    [
        (None, None, ["0", "1"]),
        ("2,5", None, ["2", "5"]),
        ("GPU-a1,GPU-b2", 3, ["GPU-a1", "GPU-b2", "GPU-a1"]),
    ],
)
def test_runs_share_the_gpus_that_this_process_sees(
    visible: str | None, jobs: int | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    runs = Runs(jobs)
    assert runs.jobs == len(expected)
    contexts = [runs._environment() for _ in expected]
    environments = [context.__enter__() for context in contexts]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == expected
    assert {e["OMP_NUM_THREADS"] for e in environments} == {str(16 // len(expected))}
    for context in contexts:
        context.__exit__(None, None, None)
    with runs._environment() as again:
        assert again["CUDA_VISIBLE_DEVICES"] == expected[0]


def test_without_a_gpu_the_threads_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with Runs(4)._environment() as environment:
        assert environment["OMP_NUM_THREADS"] == "2"
        assert "CUDA_VISIBLE_DEVICES" not in environment
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the caller's choice stays
    with Runs(4)._environment() as environment:
        assert environment["OMP_NUM_THREADS"] == "1"


def test_modules_in_the_working_directory_do_not_run(tmp_path: Path) -> None:
    """A study is called in folders of data, and ``python -m`` takes modules from there before all others."""
    for name in ("detprune", "typer", "yaml"):
        (tmp_path / f"{name}.py").write_text("open('code_ran', 'w').close()")
    with Runs(1)._environment() as environment:
        code = Runs(1)._call(
            [sys.executable, "-m", "detprune", "--help"],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
    assert code == 0
    assert not (tmp_path / "code_ran").exists()
