"""Preloaded processes are what processes of their own are: streams, folder, signals, exit codes, what is at random."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from command_line import start
from preloaded import Preloaded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all are real"),
]


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("pass", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit(None)", 0),
        ("import sys; sys.exit(258)", 2),
        ("import sys; sys.exit('why')", 1),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import atexit, os; atexit.register(os._exit, 3)", 3),
        ("import threading, os; threading.Timer(0.1, os._exit, [5]).start()", 5),
    ],
)
def test_exit_codes_are_those_of_python(program: str, code: int) -> None:
    process = start(program=program)
    assert process.communicate()[1] == "" or code in (1, -signal.SIGINT)
    assert process.returncode == code


def test_it_is_a_child_with_what_it_was_given(tmp_path: Path) -> None:
    program = (
        "import os, sys; print(os.getppid(), os.getsid(0) == os.getpid(), os.getcwd(), __name__, "
        "sys.argv, os.environ['GIVEN'], 'PYTEST_CURRENT_TEST' in os.environ, sys.stdin.read(), "
        "sorted(os.listdir('/proc/self/fd')), len(os.listdir('/proc/self/task')))\n"
        "print('error', file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "a", "b c"]
    environment = {"GIVEN": "½", "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = Preloaded(
        command, text=True, cwd=tmp_path, env=environment, start_new_session=True, **pipes
    )
    out, error = process.communicate("said")
    assert process.returncode == 0, error
    given = f"{os.getpid()} True {tmp_path} __main__ ['-c', 'a', 'b c'] ½ False said"
    assert out == f"{given} ['0', '1', '2', '3'] 1\n"  # the last one lists the others
    assert error == "error\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_signals_reach_it_and_end_it(number: signal.Signals) -> None:
    process = start(program="import time; print('here', flush=True); time.sleep(60)")
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    assert process.poll() is None
    process.send_signal(number)
    process.communicate()
    assert process.returncode == -number


def test_nothing_at_random_is_the_same_twice() -> None:
    program = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    said = []
    threads = [
        threading.Thread(target=lambda: said.append(start(program=program).communicate()[0]))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    columns = zip(*(line.split() for line in said), strict=True)
    assert [len(set(column)) for column in columns] == [3, 3, 3]


def test_it_can_train_on_threads_and_in_workers(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from torch.utils.data import DataLoader; torch.set_num_threads(2)\n"
        "loaded = list(DataLoader(range(4), num_workers=2))\n"
        "x = torch.ones(300, 300); y = x @ x\n"
        "torch.save(torch.stack([y.sum(), torch.cat(loaded).sum()]), sys.argv[1])"
    )
    process = start(tmp_path / "sums.pt", program=program)
    assert process.communicate()[1] == ""
    assert torch.load(tmp_path / "sums.pt").tolist() == [300**3, 6]


def test_the_server_ends_with_the_process_that_asked() -> None:
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from preloaded import Preloaded, _Server\n"
        "Preloaded([sys.executable, '-c', 'pass']).wait()\n"
        "[server] = _Server._all.values(); print(server.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    folder = str(Path(__file__).parent)
    process = start(folder, program=program, preloaded=None, stderr=subprocess.DEVNULL)
    pid = int(process.communicate()[0])
    assert process.returncode == -signal.SIGKILL
    deadline = threading.Event()
    for _ in range(500):
        if (
            not Path(f"/proc/{pid}").exists()
            or "(zombie)" in Path(f"/proc/{pid}/status").read_text()
        ):
            return
        deadline.wait(0.01)
    raise AssertionError("it is still there")
