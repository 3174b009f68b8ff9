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
        name: which one.
        lr: learning rate at the start of the schedule, after warm-up.
        momentum, nesterov: of SGD.
        weight_decay: of all parameters; decoupled from the gradient in AdamW.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.05, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=5e-4, ge=0)

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
    """A stretch of training.

    Attributes:
        epochs: its length.
        optimizer: made anew for every stage.
        schedule: of the learning rate, per step: ``constant``; ``cosine`` to ``final_lr`` times lr;
            ``step``: times 0.1 at one half and three quarters.
        final_lr: what ``cosine`` ends at, as a share of lr.
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
                f"warmup is {self.warmup:g} epochs, and the stage has {self.epochs}; choose a number up to that"
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
        every: epochs per outer iteration; 0.5 updates Z and the multipliers twice an epoch. Left out: one per
            epoch, and in runs of fewer than 20 epochs 20.
        check_every: epochs between measurements of what hard pruning would give.
        stop_at: stop once that reaches this.
    """

    schedule: Literal["constant", "cosine", "step"] = "constant"
    every: float | None = Field(default=None, gt=0)
    check_every: int = Field(default=1, ge=1)
    stop_at: float | None = Field(default=None, gt=0, le=1)


class TrainerSpec(Section):
    """What is handed to Lightning's Trainer as it is, and ``channels_last``.

    Attributes:
        accelerator, devices, strategy: where it trains, and how several devices share the work.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        accumulate_grad_batches: batches in an optimizer step.
        gradient_clip_val: largest norm of the gradient; null: it is not clipped.
        progress_bar: show one.
        deterministic: on a GPU, train with the algorithms alone that always add up in the same order, so that
            the same seed, and a run that is resumed, give the same bits; on a CPU they do in any case.
        channels_last: train with the weights of convolutions in that memory format, which is faster on most
            GPUs with mixed precision and on CPUs; the files that a run leaves are the same in form.
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
