"""Run by test_ddp.py in two processes: trains under constraints, leaves every rank's pruner state."""

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import detprune as dp
import lightning as L
from detprune_lightning import ConstrainedTraining


class Net(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main(out: Path, method: str) -> None:
    torch.set_num_threads(1)
    L.seed_everything(0)
    data = TensorDataset(torch.randn(64, 1, 8, 8), torch.randint(4, (64,)))
    module = Net()
    training = ConstrainedTraining(
        {"slr": dp.SLR(rho="auto"), "admm": dp.ADMM(), "sas_admm": dp.SASADMM(inner_steps=4)}[
            method
        ],
        budget=dp.Budget(compression=5),
        every=0.5,
        network=module.network,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[training],
    )
    trainer.fit(module, DataLoader(data, batch_size=8, shuffle=True))
    pruner = training.pruner
    before = pruner.state_dict()
    state = {
        kind: {n: t.clone() for n, t in ts.items()}
        for kind, ts in before["state"]["tensors"].items()
    }
    own_losses = float(
        nn.functional.cross_entropy(module.network(data.tensors[0]), data.tensors[1])
    )
    pruner.hard_prune()
    torch.save(
        {
            "state": state,
            "scalars": before["state"]["scalars"],
            "history": before["history"],
            "masks": pruner.masks,
            "loss": own_losses,
        },
        out / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
