"""The training sections of a recipe, and the optimizers and schedules that they stand for."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    SequentialLR,
)

from detprune.errors import InputError
from detprune.run.recipe import Section


class OptimizerSpec(Section):
    """One of PyTorch's optimizers.

    Attributes:
        name: name of the optimizer.
        lr: learning rate at the start of the schedule, after warm-up.
        momentum, nesterov: SGD's options.
        weight_decay: weight decay of all parameters; decoupled from the gradient in AdamW.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0, le=1e30)  # float32 ends at 3e38
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0, le=1e30)

    @model_validator(mode="after")
    def _options_of_sgd(self) -> Self:
        if self.name != "sgd":
            for option, default in (("momentum", 0.9), ("nesterov", False)):
                if getattr(self, option) != default:
                    raise InputError(
                        f"{option} is {getattr(self, option)}, which {self.name} does not have; leave {option} out, "
                        "or take sgd"
                    )
        elif self.nesterov and not self.momentum:
            raise InputError(
                "nesterov is true, which needs momentum; momentum is 0.0: give both, or neither"
            )
        return self

    def build(self, model: nn.Module) -> Optimizer:
        """The optimizer over all parameters of the model that are trained."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self.name == "sgd":
            return torch.optim.SGD(
                parameters,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                weight_decay=self.weight_decay,
            )
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay)


class StageSpec(Section):
    """One stage of training.

    Attributes:
        epochs: number of epochs.
        optimizer: the optimizer; every stage makes a new one.
        schedule: schedule of the learning rate, per step: ``constant``; ``cosine`` down to ``final_lr`` times lr;
            ``step``: times 0.1 at one half and at three quarters of the stage.
        final_lr: learning rate at the end of ``cosine``, as a share of lr.
        warmup: epochs of linear warm-up.
        evaluate_every: epochs between evaluations of the live weights.
    """

    epochs: int = Field(ge=0, le=1_000_000)
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    final_lr: float = Field(default=0.0, ge=0, le=1)
    warmup: float = Field(default=0.0, ge=0)
    evaluate_every: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _room_for_warmup(self) -> Self:
        if self.epochs and self.warmup > self.epochs:
            raise InputError(
                f"warmup is {self.warmup:g} epochs, but the stage has {self.epochs}; choose a number up to that"
            )
        return self

    def build_schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler | None:
        """The schedule over ``steps`` optimizer steps, to be stepped after each of them."""
        warmup = min(steps - 1, round(self.warmup * steps / max(1, self.epochs)))
        rest = steps - warmup
        main: LRScheduler | None = None
        if self.schedule == "cosine":
            main = CosineAnnealingLR(optimizer, rest, eta_min=self.final_lr * self.optimizer.lr)
        elif self.schedule == "step":
            main = MultiStepLR(optimizer, [rest // 2, rest * 3 // 4])
        if warmup <= 0:
            return main
        ramp = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        return ramp if main is None else SequentialLR(optimizer, [ramp, main], [warmup])


class ConstrainedSpec(StageSpec):
    """Constrained training.

    Attributes:
        every: epochs per outer iteration; 0.5 updates Z and the multipliers twice an epoch. Left out, an outer
            iteration is one epoch; in runs of fewer than 20 epochs there are 20 outer iterations.
        check_every: epochs between measurements of the metric after hard pruning, on a copy.
        stop_at: metric after hard pruning at which constrained training ends early.
    """

    schedule: Literal["constant", "cosine", "step"] = "constant"
    every: float | None = Field(default=None, gt=0)
    check_every: int = Field(default=1, ge=1)
    stop_at: float | None = Field(default=None, gt=0, le=1)


class TrainerSpec(Section):
    """Options of Lightning's Trainer, passed on unchanged, and ``channels_last``.

    Attributes:
        accelerator, devices, strategy: the devices to train on, and how several of them share the work.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accumulate_grad_batches: batches in an optimizer step.
        gradient_clip_val: largest norm of the gradient; null: it is not clipped.
        progress_bar: whether a progress bar is shown.
        deterministic: whether a GPU uses only deterministic algorithms, so that a run with the same seed, or one
            that is resumed, is equal bit for bit; on a CPU it is in any case.
        channels_last: whether the weights of convolutions have that memory format in training, which is faster on
            most GPUs with mixed precision and on CPUs; the format of the files of a run does not change.
    """

    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    strategy: str = "auto"
    precision: str = "32-true"
    accumulate_grad_batches: int = Field(default=1, ge=1)
    gradient_clip_val: float | None = Field(default=None, gt=0)
    deterministic: bool = False
    progress_bar: bool = True
    channels_last: bool = False
