"""Two processes (Lightning DDP, gloo, CPU) must end with the same masks, Z and multipliers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ddp_training.py")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["slr", "sas_admm"])
def test_both_ranks_hold_bit_identical_state(tmp_path: Path, method: str) -> None:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("LOCAL_", "NODE_", "MASTER_"))
    }
    subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), method],
        env=environment,
        check=True,
        timeout=200,
        capture_output=True,
    )
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
