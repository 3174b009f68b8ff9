"""Two processes (Lightning DDP, gloo, CPU) must end with the same masks, Z and multipliers."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from command_line import start

SCRIPT = Path(__file__).with_name("ddp_training.py")


@pytest.mark.slow
@pytest.mark.parametrize(("method", "launched"), [("slr", True), ("sas_admm", False)])
def test_both_ranks_hold_bit_identical_state(tmp_path: Path, method: str, launched: bool) -> None:
    if launched:
        launched_by_lightning(tmp_path, method)
    else:
        preloaded(tmp_path, method)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["scalars"] == second["scalars"]
    assert first["scalars"]["k"] == 8 if method == "slr" else first["scalars"]["k"] > 0
    assert first["history"] == second["history"]
    assert len(first["history"]) == first["scalars"]["k"]
    for kind, tensors in first["state"].items():
        for name, value in tensors.items():
            assert torch.equal(value, second["state"][kind][name]), f"{kind} of {name} differs"
    for name, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][name])
        assert mask.sum() == round(mask.numel() / 5)


def launched_by_lightning(folder: Path, method: str) -> None:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LOCAL_", "NODE_", "MASTER_"))
    }
    subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), method],
        env=environment,
        check=True,
        timeout=200,
        capture_output=True,
    )


def preloaded(folder: Path, method: str) -> None:
    """As a cluster starts them: every rank is told who it is."""
    program = f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    port = str(find_free_network_port())
    place = {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with ExitStack() as stack:
        ranks = [
            start(folder, method, program=program, env={**place, "LOCAL_RANK": rank})
            for rank in ("0", "1")
        ]
        for process in ranks:
            stack.callback(process.communicate)
            stack.callback(process.kill)
        for process in ranks:
            assert process.wait(timeout=200) == 0, process.communicate()[1]
