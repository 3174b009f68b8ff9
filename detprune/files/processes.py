"""The check whether a process that left its number is still alive.

Process numbers are used again, within seconds in a container. The start time of a process distinguishes two
processes of one number. It is known on Linux; elsewhere the number alone counts.
"""

import os
import socket
from pathlib import Path

HOST = socket.gethostname()


def start_mark(pid: int) -> str | None:
    """Boot id of the machine and start time of a process; None if the process is dead or not known."""
    ticks = _start_ticks(pid)
    if ticks is None:
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{boot}+{ticks}"


def is_alive(pid: int, mark: str | None = None) -> bool:
    """Whether a process of this machine runs, and has the mark if one is given."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # the process belongs to another user
    if not Path("/proc/self/stat").exists():
        return True
    found = start_mark(pid)
    return found is not None and mark in (None, found)


def start_seconds(pid: int) -> float | None:
    """Start time of a process, in seconds since 1970; None if it is dead or not known."""
    ticks = _start_ticks(pid)
    if ticks is None:
        return None
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    boot = next((line.split()[1] for line in lines if line.startswith("btime ")), None)
    return None if boot is None else int(boot) + ticks / os.sysconf("SC_CLK_TCK")


def is_suspended(pid: int) -> bool:
    """Whether a process was stopped, by ctrl-Z or SIGSTOP; it takes no other signal but SIGKILL until SIGCONT."""
    return _stat(pid)[:1] == ["T"]


def _start_ticks(pid: int) -> int | None:
    """Start time of a process in ticks, field 22 of ``/proc/PID/stat`` (proc(5)); a zombie counts as dead."""
    state, *fields = _stat(pid) or ["X"]
    return None if state in "ZX" else int(fields[18])


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on (proc(5)); none if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the process name before ")" may hold any character
