"""Processes of detprune that need not import for ten seconds first.

A server has imported everything and done nothing else: it never computed, holds no thread, no device and no lock.
For each process that is asked for it forks a child, which takes over arguments, environment, working directory,
standard streams and signals, and then does what ``python -m detprune`` (or ``python -c``) does, up to and with what is
registered for its end. The child becomes a child of the process that asked, so that :class:`Preloaded` is a
:class:`subprocess.Popen` in everything that it can do: the number of the process, ``poll``, ``kill``, ``communicate``,
exit codes and deaths by signals are the system's own.

What differs from a process of its own: modules are there before they are asked for, the hashes of strings are the same
in all children, and modules are not taken apart at the end. What is about that, and one process of each kind (a run, a
study, a kill and the run that is resumed in each adapter, signals), is tested with processes of their own;
``pytest --real-processes`` does it with all of them.
"""

import atexit
import ctypes
import gc
import importlib
import io
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from types import ModuleType
from typing import Any, ClassVar

_PROGRAM = (
    *(
        "detprune.run.cli.main",
        "detprune.run.cli.terminal",
        "detprune.run.claim",
        "detprune.run.pipeline",
    ),
    *("detprune.run.measuring", "detprune.run.report", "matplotlib.pyplot"),
)
_FRAMEWORKS = {
    # two servers, for Ultralytics changes torch.save and others for all of its process
    "lightning": (
        *("detprune_classification.task", "detprune_lanes.task", "detprune_lanes.export"),
        *("sklearn.datasets", "scipy.io", "torch.utils.tensorboard"),
        "tabulate",  # else torch._dynamo imports it at the end, after which Python has forgotten an interrupt
    ),
    "yolo": (
        *("detprune_yolo.adapter", "detprune_yolo.task", "detprune_yolo.export.onnx"),
        *("torchvision", "torch._dynamo", "scipy.stats", "albumentations"),
    ),
}
_OF_ALL = {"OMP_NUM_THREADS": "", "PYTHONPATH": "", "FORCE_COLOR": "", "NO_COLOR": ""}
_READ_AT_IMPORT = {  # the variables, and what counts where one is not set
    "lightning": _OF_ALL,
    "yolo": {
        **_OF_ALL,
        **{"YOLO_CONFIG_DIR": "", "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"},
        **{"ULTRALYTICS_SAFE_LOAD": "1", "DETPRUNE_UNSAFE_LOAD": ""},
    },
}
_SET_CHILD_SUBREAPER = 36  # prctl(2)
_LONGEST = 2**20  # bytes of a request

real = False
"""Whether every process is one of its own; set by ``pytest --real-processes``."""


class Preloaded(subprocess.Popen[Any]):
    """``Popen`` of ``[sys.executable, "-m" or "-c", …]``; what else Popen takes and is not supported is refused.

    Args:
        framework: whose modules are there already: ``"lightning"`` or ``"yolo"``.
    """

    def __init__(self, args: list[str], *, framework: str = "lightning", **options: Any) -> None:
        self._framework = framework
        super().__init__(args, **options)

    def _execute_child(self, *given: Any) -> None:
        if real or sys.platform != "linux":
            return super()._execute_child(*given)  # type: ignore[misc, no-any-return]
        names = (
            *("args", "executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env"),
            *("startupinfo", "creationflags", "shell"),
            *("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"),
            *("restore_signals", "gid", "gids", "uid", "umask"),
            *("start_new_session", "process_group"),
        )
        call = dict(zip(names, given, strict=True))
        assert call["args"][0] == sys.executable
        assert call["args"][1] in ("-m", "-c")
        assert not any(call[name] for name in ("executable", "preexec_fn", "pass_fds", "shell"))
        environment = dict(os.environ if call["env"] is None else call["env"])
        request = {
            "words": call["args"][1:],
            "environment": environment,
            "folder": os.path.abspath(call["cwd"] or "."),
            "session": call["start_new_session"],
            "group": call["process_group"],
        }
        streams = [
            given if given != -1 else own
            for own, given in enumerate((call["p2cread"], call["c2pwrite"], call["errwrite"]))
        ]
        self.pid = _Server.of(self._framework, environment).fork(request, streams)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(call[name] for name in names[names.index("p2cread") : names.index("restore_signals")])
        )


class _Server:
    """The process that has imported, seen from the one that asks."""

    _all: ClassVar[dict[tuple[str, ...], "_Server"]] = {}
    _one_at_a_time = threading.RLock()  # threads of a study start processes

    @classmethod
    def of(cls, framework: str, environment: dict[str, str]) -> "_Server":
        """The one with these modules and the environment that they read; it is started if there is none."""
        values = (environment.get(*pair) for pair in _READ_AT_IMPORT[framework].items())
        key = (framework, *values)
        with cls._one_at_a_time:
            if key not in cls._all:
                cls._all[key] = cls(framework, environment)
            return cls._all[key]

    def __init__(self, framework: str, environment: dict[str, str]) -> None:
        self.socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), framework],
                stdin=subprocess.DEVNULL,
                env={**environment, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},  # the other starts CUDA
                pass_fds=[theirs.fileno()],
            )
        assert self.socket.recv(1) == b"!", "the server of preloaded processes did not start"
        atexit.register(self.end)

    def fork(self, request: dict[str, Any], streams: list[int]) -> int:
        """Start a process; returns its number. It is a child of this process."""
        message = json.dumps(request).encode()
        with self._one_at_a_time:
            _adopt(True)
            try:
                self.socket.sendall(len(message).to_bytes(8, "little") + message)
                socket.send_fds(self.socket, [b"."], streams)
                answer = self.socket.recv(8)
                assert len(answer) == 8, "the server of preloaded processes has died"
                pid = int.from_bytes(answer, "little")
            finally:
                _adopt(False)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # raises if it is no child
        return pid

    def end(self) -> None:
        """It ends with the connection, and so with this process, however that ends."""
        self.socket.close()
        self.process.wait()


def _adopt(orphans: bool) -> None:
    """Whether this process becomes the parent of orphans among its descendants."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _serve(connection: socket.socket, added: dict[str, str]) -> list[str] | None:
    """Fork on request; returns the words of a command in each child, None in the server at its end.

    Args:
        added: variables that imports have set, as they would in a process of its own.
    """
    while True:
        header = connection.recv(8, socket.MSG_WAITALL)
        if len(header) < 8:
            return None
        message = connection.recv(int.from_bytes(header, "little"), socket.MSG_WAITALL)
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        reading, writing = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            pid = os.fork()
            if pid == 0:
                while os.getppid() == between:
                    time.sleep(0.001)
                for file in (reading, writing, connection.detach()):
                    os.close(file)
                return _become(json.loads(message), streams, added)
            os.write(writing, pid.to_bytes(8, "little"))
            os._exit(0)  # which makes the child one of the process that asks
        os.waitpid(between, 0)
        connection.sendall(os.read(reading, 8))
        for file in (reading, writing, *streams):
            os.close(file)


def _become(request: dict[str, Any], streams: list[int], added: dict[str, str]) -> list[str]:
    """Make of this process, just forked, what a new one would be."""
    import numpy as np
    import torch

    for own, given in enumerate(streams):
        os.dup2(given, own)
        os.close(given)
    encoding = request["environment"].get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    for name, own in (
        ("stdout", 1),
        ("stderr", 2),
    ):  # the server's may have been a file, in which one can seek
        buffering = {"line_buffering": True} if name == "stderr" else {}
        stream = io.TextIOWrapper(os.fdopen(own, "wb", closefd=False), encoding, **buffering)
        setattr(sys, name, stream)
    if request["session"]:
        os.setsid()
    elif request["group"] != -1:
        os.setpgid(0, request["group"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(added | request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"] if request["words"][0] == "-m" else ""
    random.seed()
    np.random.seed()
    torch.default_generator.seed()
    words: list[str] = request["words"]
    return words


def main() -> None:
    """The server, and in its children the command."""
    handle, framework = sys.argv[1:]
    code: list[int] = []
    atexit.register(_leave, code)  # before the imports, so after whatever they do at the end
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    before = set(os.environ)
    for name in (*_PROGRAM, *_FRAMEWORKS[framework]):
        importlib.import_module(name)
    added = {name: value for name, value in os.environ.items() if name not in before}
    assert os.listdir("/proc/self/task") == [str(os.getpid())], "an import has started threads"
    gc.collect()
    gc.freeze()
    connection = socket.socket(fileno=int(handle))
    connection.sendall(b"!")
    words = _serve(connection, added)
    if words is None:
        os._exit(0)  # what would happen at its end has happened in the children
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *words[2:]]
            sys.modules["__main__"] = program = ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), program.__dict__)
    except SystemExit as stopped:
        if stopped.code is None or isinstance(stopped.code, int):
            code.append((stopped.code or 0) & 0xFF)
        raise
    code.append(0)


def _leave(code: list[int]) -> None:
    """End without taking all modules apart, which takes seconds; after an exception Python ends it."""
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code[0])
    gc.unfreeze()


if __name__ == "__main__":
    main()
