"""What the training of our own tasks adds to Lightning."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lightning as L
from detprune import SLR, Budget, InputError
from detprune.run.recipe import validate
from detprune_lightning.checkpoints import AtomicCheckpoints
from detprune_lightning.constrained import ConstrainedTraining
from detprune_lightning.spec import ConstrainedSpec, OptimizerSpec, StageSpec, TrainerSpec
from detprune_lightning.training import _cluster, check_trainer


def rates(spec: StageSpec, steps: int) -> list[float]:
    optimizer = spec.optimizer.build(nn.Linear(2, 2))
    schedule = spec.build_schedule(optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return seen


@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_schedules() -> None:
    sgd = OptimizerSpec(lr=1.0)
    assert rates(ConstrainedSpec(epochs=2, optimizer=sgd), 4) == [1.0] * 4
    cosine = rates(StageSpec(epochs=4, optimizer=sgd, final_lr=0.1), 8)
    assert cosine[0] == 1.0
    assert cosine[4] == pytest.approx(0.55)
    assert cosine == sorted(cosine, reverse=True)
    warm = rates(StageSpec(epochs=4, optimizer=sgd, warmup=1), 8)
    assert warm[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert warm[2:] == sorted(warm[2:], reverse=True)
    step = rates(StageSpec(epochs=4, optimizer=sgd, schedule="step"), 8)
    assert step == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "64"])
def test_weights_of_another_type_are_refused_before_training(precision: str) -> None:
    with pytest.raises(
        InputError, match=f"'{precision}'.* allowed are 32-true, 16-mixed, bf16-mixed"
    ):
        check_trainer(TrainerSpec(accelerator="cpu", precision=precision))
    for allowed in ("32", "32-true", "bf16", "bf16-mixed", "16-mixed"):
        check_trainer(TrainerSpec(accelerator="cpu", precision=allowed))


def test_a_warmup_longer_than_its_stage_is_refused() -> None:
    with pytest.raises(InputError, match=r"warmup is 3\.5 epochs, but the stage has 3; choose"):
        validate(StageSpec, {"epochs": 3, "warmup": 3.5})
    assert validate(StageSpec, {"epochs": 0, "warmup": 3}).epochs == 0  # trains nothing


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_take_the_trained_parameters_only(name: Any, kind: type) -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = OptimizerSpec(name=name, lr=0.3, weight_decay=0.2).build(model)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert [p is model.weight for p in group["params"]] == [True]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"epoch": 1}, path)

    class Unpicklable:
        def __reduce__(self) -> Any:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        AtomicCheckpoints().save_checkpoint({"epoch": 2, "x": Unpicklable()}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("penalty", ["proximal", "gradient"])
def test_a_pull_is_the_one_asked_for_through_a_warm_up(penalty: Any, tmp_path: Path) -> None:
    class Regression(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return (self.layer(batch) - batch[:, :4]).square().mean()

        def configure_optimizers(self) -> Any:
            spec = StageSpec(epochs=4, optimizer=OptimizerSpec(lr=0.1), warmup=2)
            optimizer = spec.optimizer.build(self)
            scheduler = spec.build_schedule(optimizer, 32)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }

    callback = ConstrainedTraining(
        SLR(rho="auto", penalty=penalty), budget=Budget(sparsity=0.5), every=1
    )
    trainer = L.Trainer(
        max_epochs=4, callbacks=[callback], accelerator="cpu", logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Regression(), torch.utils.data.DataLoader(torch.randn(32, 6), batch_size=4))
    history = callback.pruner.history
    asked = [0.3 * 10 ** (k / 3) for k in range(4)]
    assert [entry.pull for entry in history] == pytest.approx(asked)
    lr = [0.1 * (step + 1) / 17 for step in range(16)]
    time = [sum(lr[:8]), sum(lr[8:])]
    through = 0.1 if penalty == "gradient" else 1.0  # 1 − momentum
    expected = [pull * through / t for pull, t in zip(asked, time, strict=False)]
    assert [entry.rho for entry in history[:2]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "adamw", "momentum": 0.95}, "momentum is 0.95, which adamw does not have"),
        ({"name": "adam", "nesterov": True}, "nesterov is True, which adam does not have"),
        ({"nesterov": True, "momentum": 0}, "nesterov is true, which needs momentum"),
    ],
)
def test_options_that_an_optimizer_does_not_have(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        validate(OptimizerSpec, options)
    written = OptimizerSpec(name="adamw").model_dump()  # a run's recipe has the defaults of SGD
    assert validate(OptimizerSpec, written).name == "adamw"


def test_the_allowed_precisions_are_those_that_recipes_take() -> None:
    spec = TrainerSpec(accelerator="cpu", precision="int8")
    with pytest.raises(InputError, match=r"'int8'; allowed are 32-true, 16-mixed, bf16-mixed$"):
        check_trainer(spec)


def test_slurm_ends_a_stage_and_lightning_does_not_queue_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not _cluster()
    names = {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "prune", "PROCID": "0", "LOCALID": "0"}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert [environment.auto_requeue for environment in _cluster()] == [False]
