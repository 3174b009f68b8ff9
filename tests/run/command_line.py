"""``detprune`` in a process of its own."""

import os
import subprocess
import sys


def detprune(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Call it on one thread; it must leave with the code."""
    process = subprocess.run(
        [sys.executable, "-m", "detprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert process.returncode == code, process.stdout + process.stderr
    return process
