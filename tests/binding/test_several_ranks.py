"""Two ranks of a plain loop (gloo, CPU) agree on the task loss, whichever of them knows it."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from core_models import HALF, batches, loss_of, sgd, small_net
from detprune import ADMM, SLR, Pruner


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    found = {}
    for name, method in (("admm", ADMM(rho=0.1)), ("slr", SLR(rho=0.1))):
        model = small_net()
        ddp = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = sgd(model)
        pruner = Pruner(ddp, optimizer, method, budget=HALF)
        for step, batch in enumerate(batches(4)):
            optimizer.zero_grad()
            loss = loss_of(ddp, batch)
            loss.backward()
            optimizer.step()
            if rank == 0 and step < 2:
                pruner.observe(loss)
            if step % 2:  # in the second outer iteration rank 1 alone measures a loss
                pruner.update(task_loss=0.25 if rank == 1 and step > 2 else None)
        pruner.hard_prune()
        found[name] = {"history": pruner.state_dict()["history"], "masks": pruner.masks}
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_loss_that_one_rank_alone_knows_counts_for_all(tmp_path: Path) -> None:
    multiprocessing.start_processes(train_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    for name in ("admm", "slr"):
        losses = [entry["task_loss"] for entry in first[name]["history"]]
        assert losses[0] > 0
        assert losses[1] == 0.25
        assert first[name]["history"] == second[name]["history"]
        for weight, mask in first[name]["masks"].items():
            assert torch.equal(mask, second[name]["masks"][weight])
