# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' trainer with a pruner bound to its optimizer: constrained training, masked retraining.

The penalty is added in the optimizer's pre-step hook, after gradients were clipped, so that the effect of ρ does
not depend on batch size, accumulation or loss scale. Z and the multipliers are updated at fixed batches of the
training, once each: an epoch that is broken off and repeated updates nothing twice.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import nn
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

from detprune.budgets import Budget
from detprune.channels import CoupledChannels
from detprune.errors import DetpruneError, InputError, MissingLossError, NonFiniteError
from detprune.files.atomic import atomic
from detprune.files.deflated import deflate
from detprune.networks.batch_norm import statistics_layers
from detprune.pruner import Pruner
from detprune.run.events import HardPruneCheck, Outer
from detprune.run.schedule import outer_iterations
from detprune_yolo.channels import budget_of, detector_set, lacks_channels, smaller_detector
from detprune_yolo.exclusions import frozen_batch_norms
from detprune_yolo.measure.calibration import TrainingImages, estimate_batch_norm
from detprune_yolo.measure.hard_pruned import hard_pruned_metric
from detprune_yolo.training.epochs import check_every, plain
from detprune_yolo.training.resumable import IS_MAIN, ResumableTrainer
from detprune_yolo.training.settings import StageSettings
from detprune_yolo.training.sidecar import read_sidecar, taken_up
from detprune_yolo.weights.checkpoints import (
    carry_masks,
    pruned_checkpoint,
    read_masks,
    save_checkpoint,
)


class ConstrainedTrainer(ResumableTrainer):
    """Constrained training; writes ``weights/hard_pruned.pt`` and ``weights/pruner.pt`` beside ``last.pt``.

    With whole channels also ``weights/shrunk.pt``, the network without them.
    """

    settings: ClassVar[StageSettings] = StageSettings(stage="constrained")
    _failure: NonFiniteError | None = None
    _images: TrainingImages | None = None
    _updates: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.settings.budget is None:
            raise InputError(
                "ConstrainedTrainer has no method and no budget; pass "
                "trainer=detprune_yolo.constrained(method, budget=…) to train()"
            )
        if str(self.args.optimizer).lower() == "auto":
            raise InputError(
                "optimizer is 'auto', which picks AdamW or MuSGD and ignores lr0, so that the strength "
                "of the penalty is unknown; give constrained training optimizer='SGD' and lr0"
            )
        if self.args.time:
            raise InputError(
                f"time is {self.args.time}, but outer iterations are counted in epochs; give constrained "
                "training epochs"
            )
        if self.device.type == "mps":
            raise InputError(
                "the device is mps, which has no float64 for the sums of constrained training; use "
                "device='cpu' or a CUDA GPU"
            )
        if self.args.patience:
            LOGGER.info(
                "constrained training: patience is 0, because the weights of the last epoch are pruned, not the best's"
            )
            self.args.patience = 0

    def start(self) -> None:
        super().start()
        settings, model = self.settings, unwrap_model(self.model)
        budget = budget_of(settings.budget or Budget(), settings.set, model, self.args.freeze)
        self._updates = outer_iterations(self.epochs, self._steps(), settings.every)
        self.pruner = Pruner(
            model,
            self.optimizer,
            settings.method,
            detector_set(settings.set, model, self.args.imgsz),
            budget,
            steps_per_update=self._steps_per_update(),
            updates=self._updates,
        )
        if self._resumed is not None:
            with taken_up(self.wdir):
                self.pruner.load_state_dict(self._resumed["pruner"])
            # steps of the present outer iteration; early in a warm-up it has more
            self.pruner.steps_per_update = self._steps_per_update()

    def _steps(self) -> int:
        """Optimizer steps of the whole training."""
        return max(1, len(self.train_loader) * int(self.epochs) // int(self._accumulate))

    def _steps_per_update(self) -> int:
        if self.settings.method.has_inner_loop:
            return max(1, round(self._steps() / self._updates))
        check_every(self.settings.every, len(self.train_loader), int(self._accumulate))
        return self._steps_of(
            min(len(self.pruner.history), self._updates - 1) if self.pruner else 0
        )

    def _steps_of(self, done: int) -> int:
        """Optimizer steps of outer iteration ``done`` + 1; in a warm-up there are more, as accumulation is shorter."""
        batches, args = len(self.train_loader), self.args
        whole = batches * int(self.epochs)
        full = min(max(round(args.nbs / self.batch_size), 1), whole)
        warmup = round(max(0.0, min(args.warmup_epochs, self.epochs - 1)) * batches)
        # it ends with the first batch at which _due_after holds
        first, end = (-(-k * whole // self._updates) for k in (done, done + 1))
        last, steps = -1, 0
        for number in range(end):
            share = min(1.0, number / warmup) if warmup else 1.0
            if number - last >= max(1, round(1 + share * (full - 1))):
                last = number
                steps += number >= first
        return max(1, steps)

    def _due_after(self, epochs: float) -> bool:
        """Whether an outer iteration ends after ``epochs``, and was not ended by an epoch that was broken off."""
        done = len(self._bound().history)
        return bool(done < math.floor(epochs * self._updates / self.epochs + 1e-9))

    def repeat_epoch(self) -> None:
        """Reset the state for a repeated epoch; after a NaN the pruner's state is that of the last complete epoch."""
        super().repeat_epoch()
        pruner, self._failure = self._bound(), None
        pruner.discard_losses()
        pruner.steps_per_update = self._steps_per_update()  # batches are smaller if memory ran out
        saved = read_sidecar(self.wdir) if self.nan_recovery_attempts else None
        if saved is not None:
            pruner.load_state_dict(saved["pruner"])
            self._copy_average_without_hooks()

    def _copy_average_without_hooks(self) -> None:
        """Copy the moving average without hooks: a recovery copies SAS-ADMM's, which safe loading would refuse."""
        pruner, average = self._bound(), self.ema.ema.state_dict()
        pruner.detach()
        self.ema.ema = deepcopy(unwrap_model(self.model)).eval().requires_grad_(False)
        self.ema.ema.load_state_dict(average)
        pruner.attach(self.optimizer)

    def end_batch(self) -> None:
        """Note the task loss per image, and end the outer iteration if it is due; SAS-ADMM decides that itself."""
        pruner = self._bound()
        loss = torch.stack([value.detach() for value in self.loss_items.values()]).sum()
        if torch.isfinite(loss):  # else a GradScaler skips the step, or Ultralytics recovers
            pruner.observe(loss)
        if self._failure is None and self._ends_outer_iteration():
            try:
                self._update()
            except MissingLossError:  # only finite losses are observed
                what = "no task loss of an outer iteration was finite"
                self._failure = NonFiniteError(f"training has diverged: {what}")
            except NonFiniteError as error:
                self._failure = error
        if self._failure is not None:
            # Ultralytics checks the epoch's last loss and goes back to its last checkpoint
            self.loss = torch.full_like(loss, float("nan"))

    def _ends_outer_iteration(self) -> bool:
        if self.settings.method.has_inner_loop:
            return self._bound().due
        # an outer iteration that ends with the epoch waits until the epoch is complete
        share = (self._batch + 1) / len(self.train_loader)
        return share < 1 and self._due_after(self.epoch + share)

    def end_epoch(self) -> None:
        settings, epoch = self.settings, self.epoch + 1
        if self._failure is not None:  # only in the first epoch, where Ultralytics cannot go back
            raise self._failure
        last = epoch >= self.epochs  # all ranks agree on it
        if not settings.method.has_inner_loop and self._due_after(epoch):
            self._update()
        if settings.check_every and (last or epoch % settings.check_every == 0):
            value = self._check()
            if IS_MAIN:
                self.log_event(HardPruneCheck, metric=value)
                LOGGER.info(f"hard-pruned copy: {self.kind.metrics[0].name} {value:.4f}")
                self.stop |= settings.stop_at is not None and value >= settings.stop_at
        super().end_epoch()

    def finish(self) -> None:
        """Hard-prune the final weights of constrained training, and save them."""
        pruner = self._bound()
        if self.settings.prune == "ema":
            unwrap_model(self.model).load_state_dict(self.ema.ema.state_dict())
        pruner.hard_prune()
        model = unwrap_model(self.model)
        self._estimate_batch_norm(model)
        checkpoint = pruned_checkpoint(model, pruner.masks, train_args=vars(self.args))
        save_checkpoint(self.wdir / "hard_pruned.pt", checkpoint)
        if isinstance(self.settings.set, CoupledChannels):
            smaller = pruned_checkpoint(smaller_detector(pruner), None, train_args=vars(self.args))
            save_checkpoint(self.wdir / "shrunk.pt", smaller)
        with atomic(self.wdir / "pruner.pt") as temporary:
            torch.save(plain(pruner.state_dict()), temporary)

    def _bound(self) -> Pruner:
        if self.pruner is None:
            raise DetpruneError("there is no pruner before training starts")
        return self.pruner

    def _update(self) -> None:
        pruner = self._bound()
        entry = pruner.update()
        pruner.steps_per_update = self._steps_per_update()
        self.log_event(Outer, **vars(entry))

    def _check(self) -> float:
        """The headline metric of a hard-pruned copy; every rank validates its share, the first one has the result."""
        live, pruner = unwrap_model(self.model), self._bound()
        if self.settings.prune == "ema":
            held = {name: value.clone() for name, value in live.state_dict().items()}
            live.load_state_dict(self.ema.ema.state_dict())
            clone = pruner.hard_pruned_copy()
            live.load_state_dict(held)
            del held
        else:
            clone = pruner.hard_pruned_copy()
        if IS_MAIN:
            self._estimate_batch_norm(clone)
        if self.world_size > 1:  # every rank has its own batch-norm statistics
            for buffer in clone.buffers():
                dist.broadcast(buffer, src=0)
        return hard_pruned_metric(self, clone, self.settings.annotations)

    def _estimate_batch_norm(self, network: nn.Module) -> None:
        if not self.settings.batch_norm_images or not statistics_layers(network):
            return
        if self._images is None:
            self._images = TrainingImages(
                Path(str(self.args.data)),
                count=self.settings.batch_norm_images,
                imgsz=int(self.args.imgsz),
                batch=self.batch_size,
                kind=self.kind,
            )
        frozen = frozen_batch_norms(network, self.args.freeze)
        estimate_batch_norm(network, self._images, self.device, frozen=frozen)


class RetrainingTrainer(ResumableTrainer):
    """Retraining after pruning: masked weights stay exactly zero, and a smaller network keeps its channels.

    Begins with a checkpoint that carries masks, or with one from which channels were taken out.
    """

    settings: ClassVar[StageSettings] = StageSettings(stage="retrain")
    _masks: Mapping[str, torch.Tensor]

    def start(self) -> None:
        super().start()
        model = unwrap_model(self.model)
        if self._resumed is not None:
            with taken_up(self.wdir):
                masks = (self._resumed["pruner"] or {}).get("masks")
        else:
            given = Path(str(self.args.model))
            if given.suffix in (".yaml", ".yml"):
                raise InputError(
                    f"{given} is a description without masks: YOLO(…).load(file) takes over weights alone; write "
                    "YOLO(file), with hard_pruned.pt or a file that RetrainingTrainer wrote"
                )
            masks = read_masks(given)
        self._masks = masks or {}
        if not masks and lacks_channels(model):
            return
        if not masks:
            raise InputError(
                f"{self.args.model} carries no masks, so there is nothing to hold at zero; start "
                "masked retraining from hard_pruned.pt, which constrained training leaves, or from a file "
                "that RetrainingTrainer wrote: training without detprune keeps no masks, and does not keep zeros"
            )
        if any(mask.dim() == 1 for mask in masks.values()):
            raise InputError(
                f"{self.args.model} has whole channels at zero; retrain the network without them, which has the same "
                "outputs: shrunk.pt beside it"
            )
        # the optimizer does not move weights that Ultralytics froze
        moving = {name for name, p in model.named_parameters() if p.requires_grad}
        held = {name: mask for name, mask in masks.items() if name in moving}
        self.pruner = Pruner.with_masks(model, held, self.optimizer)
        self._mask_average()

    def begin_epoch(self) -> None:
        super().begin_epoch()
        self._mask_average()  # a NaN recovery replaces it

    def end(self) -> None:
        """Compress Ultralytics' own files, which shrink by their zeros."""
        super().end()
        for path in (self.best, self.last):
            if IS_MAIN and path.exists():
                with atomic(path) as temporary:
                    deflate(path, temporary)

    def _mask_average(self) -> None:
        if not self._masks:
            return
        weights = dict(self.ema.ema.named_parameters())
        with torch.no_grad():
            for name, mask in self._masks.items():
                weights[name].masked_fill_(~mask.to(weights[name].device), 0.0)
        carry_masks(self.ema.ema, self._masks)
