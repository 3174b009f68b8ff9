# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics' own trainers with an exact resume.

No code of the trainer is copied: there are a subclass that Ultralytics can import in every process, and
callbacks. An epoch counts once it is complete, in the first ``on_fit_epoch_end`` after it; neither a NaN
recovery nor an out-of-memory retry reaches that callback.
"""

import os
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from detprune.errors import InputError
from detprune.files.temporaries import temporary_name
from detprune.pruner import Pruner
from detprune.run.directory import RunDirectory
from detprune.run.events import Epoch, Event
from detprune.run.seeds import derive_seed
from detprune_yolo.training.distillation import teach
from detprune_yolo.training.epochs import fill_mosaic_buffer, mosaic_buffer, plain, seed_epoch
from detprune_yolo.training.sidecar import read_sidecar, remove_sidecar, taken_up, write_sidecar
from detprune_yolo.training.sizes import check_sizes
from detprune_yolo.training.task_trainer import TaskTrainer
from detprune_yolo.weights.filenames import check_output_name

IS_MAIN = RANK in (-1, 0)


class ResumableTrainer(TaskTrainer):
    """Trains as Ultralytics does, and continues an interrupted stage bit for bit."""

    resume: bool
    last: Path
    best: Path

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, list[Callable[[Any], None]]] | None = None,
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        check_output_name(self.best.absolute())
        if self.ddp and not self.resume and self.save_dir in Path(str(self.args.model)).parents:
            raise InputError(
                f"Ultralytics empties {self.save_dir} before it starts several processes, and "
                f"{self.args.model} lies in it; give train() another name, or copy the file"
            )
        self.pruner: Pruner | None = None
        self._resumed: dict[str, Any] | None = None
        self._begun: int | None = None
        self._whole = False
        self._batch = -1
        self._last_step = -1
        self._awaits_step = False
        self._clock = time.perf_counter()
        for event, function in _CALLBACKS.items():
            # workers of a distributed run get the launching process's callbacks, and add their own
            if function not in self.callbacks[event]:
                self.add_callback(event, function)

    # ---------------------------------------------------------------- resume

    def resume_training(self, ckpt: Any) -> None:
        """Resume from the sidecar; Ultralytics would resume from its half-precision checkpoint."""
        state = read_sidecar(self.wdir) if self.resume or self.settings.resume else None
        if state is None:
            if self.resume:
                raise InputError(
                    f"{self.wdir} has no sidecar last.detprune.pt, without which pruning cannot be "
                    "resumed; start this stage again without resume"
                )
            super().resume_training(None)
            return
        with taken_up(self.wdir):
            self._take_up(state)

    def _take_up(self, state: dict[str, Any]) -> None:
        if state["stage"] != self.stage:
            raise InputError(
                f"the sidecar in {self.wdir} is of the stage {state['stage']!r}, but this trainer resumes "
                f"{self.stage!r}; resume with the trainer that wrote it"
            )
        average = deepcopy(unwrap_model(self.model))
        average.load_state_dict(state["ema"])
        self.resume = True
        super().resume_training({**state, "ema": average})
        unwrap_model(self.model).load_state_dict(state["model"])
        if IS_MAIN and state["results"]:
            self.csv.write_text(state["results"], encoding="utf-8")
        self._resumed = state
        if state["batches"] == len(self.train_loader):
            self._last_step, self._awaits_step = state["last_step"], True
        else:
            LOGGER.warning(
                f"the batch size is not the one of the interrupted training ({state['batch']}), so that "
                "the resumed training differs from an uninterrupted one"
            )
            state["gradients"] = None

    def _state(self) -> dict[str, Any]:
        gradients = [p.grad for p in unwrap_model(self.model).parameters()]
        state = {
            "stage": self.stage,
            "epoch": self.epoch,
            "done": bool(self.stop),
            "batch": self.batch_size,
            "batches": len(self.train_loader),
            "model": unwrap_model(self.model).state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best_fitness": self.best_fitness,
            "stopper": {
                "best_fitness": self.stopper.best_fitness,
                "best_epoch": self.stopper.best_epoch,
            },
            "last_step": self._last_step,
            "gradients": gradients if any(g is not None for g in gradients) else None,
            "buffer": mosaic_buffer(self.train_loader),
            "results": self.csv.read_text(encoding="utf-8") if self.csv.exists() else "",
            "pruner": None if self.pruner is None else self.pruner.state_dict(),
        }
        return {key: plain(value) for key, value in state.items()}

    @property
    def accumulate(self) -> int:
        """Batches per optimizer step.

        A resumed loop has forgotten when the last step was and would step at once; until the first
        step that was due, it is told to go on accumulating.
        """
        waiting = self._awaits_step and self._batch >= 0
        if waiting and self._number - self._last_step < self._accumulate:
            return self._number + 2
        return self._accumulate

    @accumulate.setter
    def accumulate(self, batches: int) -> None:
        self._accumulate = batches

    @property
    def _number(self) -> int:
        return int(self._batch + len(self.train_loader) * self.epoch)

    def optimizer_step(self) -> None:
        """Take Ultralytics' step, and note it for the sidecar."""
        super().optimizer_step()
        self._last_step, self._awaits_step = self._number, False

    def get_dataloader(self, *args: Any, **options: Any) -> Any:
        """Ultralytics' loader; if it replaces another one, gradient accumulation restarts."""
        self._batch, self._awaits_step = -1, False
        return super().get_dataloader(*args, **options)

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        seed_epoch(self, self.stage)

    # ---------------------------------------------------------------- callbacks

    def start(self) -> None:
        """Callback where training starts or is resumed; the optimizer and the moving average exist."""
        settings, model = self.settings, unwrap_model(self.model)
        check_sizes(model, vars(self.args))
        if settings.teacher is not None:
            teach(model, settings.teacher, settings.teacher_weight, self.device)
        if self.settings.run_dir is not None:
            RunDirectory(self.settings.run_dir).rewind(self.stage, self.start_epoch)

    def begin_epoch(self) -> None:
        """Callback where an epoch starts, or is repeated."""
        again = self._begun == self.epoch
        self._begun, self._whole, self._batch = self.epoch, False, -1
        self._clock = time.perf_counter()
        if again:
            self.repeat_epoch()
        seed_epoch(self, self.stage)
        first = self.epoch == self.start_epoch and not again
        if first:
            buffer = self._resumed["buffer"] if self._resumed else []
            seed = derive_seed(self.args.seed, self.stage, "buffer")
            fill_mosaic_buffer(self.train_loader, buffer, seed)
        if first and self._resumed and self._resumed["gradients"]:
            gradients = self._resumed["gradients"]
            with taken_up(self.wdir):
                for p, grad in zip(unwrap_model(self.model).parameters(), gradients, strict=True):
                    p.grad = None if grad is None else grad.to(p.device, p.dtype)
        self._resumed = None  # several times the network's size

    def repeat_epoch(self) -> None:
        """Callback where an epoch that was broken off is repeated; gradient accumulation restarts."""
        self._last_step, self._awaits_step = -1, False

    def save_model(self) -> bool:
        """Save as Ultralytics does, but replace files with whole ones: it writes over those of the epoch before.

        Raises:
            OSError: a full disk, with the name of the file; the files of the epoch before are as they were.
        """
        last, best = own = (self.last, self.best)
        self.last, self.best = written = (temporary_name(last), temporary_name(best))
        try:
            saved: bool = super().save_model()
            for temporary, path in zip(written, own, strict=True):
                if temporary.exists():  # best.pt is not written after every epoch
                    os.replace(temporary, path)
        except OSError as error:
            if error.errno is not None and error.filename is None:  # a full disk names no file
                error.filename = str(last)
            raise
        finally:
            self.last, self.best = own
            for temporary in written:
                temporary.unlink(missing_ok=True)
        return saved

    def end_batch(self) -> None:
        """Callback after every batch."""

    def end_epoch(self) -> None:
        """Callback after a complete epoch: its loss is finite, and it was validated and saved."""
        self._log_epoch()
        if not IS_MAIN:
            return
        if self.stop:
            self.finish()
        write_sidecar(self.wdir, self._state())

    def finish(self) -> None:
        """Callback after the last complete epoch; called once, in the main process."""

    def end(self) -> None:
        """Callback after training; in a run the sidecar stays, because it shows that training is over."""
        if self.settings.run_dir is None:
            remove_sidecar(self.wdir)

    def _log_epoch(self) -> None:
        losses = {name: float(value) for name, value in (self.tloss or {}).items()}
        validated = self.args.val or self.epoch + 1 >= self.epochs
        self.log_event(
            Epoch,
            epochs=self.epochs,
            train_loss=sum(losses.values()),
            losses=losses,
            lr=self.optimizer.param_groups[0]["lr"],
            metric=(self.metrics or {}).get(self.kind.watched.key) if validated else None,
            metric_name=self.kind.watched.metric.name,
            seconds=round(time.perf_counter() - self._clock, 3),
        )

    def log_event(self, kind: Callable[..., Event], **values: Any) -> None:
        """Append an event of this epoch to the run's ``metrics.jsonl``."""
        if self.settings.run_dir is not None and IS_MAIN:
            event = kind(stage=self.stage, epoch=self.epoch + 1, **values)
            RunDirectory(self.settings.run_dir).log(event)


def _on_train_start(trainer: ResumableTrainer) -> None:
    trainer.start()


def _on_train_epoch_start(trainer: ResumableTrainer) -> None:
    trainer.begin_epoch()


def _on_train_batch_start(trainer: ResumableTrainer) -> None:
    trainer._batch += 1


def _on_train_batch_end(trainer: ResumableTrainer) -> None:
    trainer.end_batch()


def _on_train_epoch_end(trainer: ResumableTrainer) -> None:
    trainer._whole = True


def _on_train_end(trainer: ResumableTrainer) -> None:
    trainer.end()


def _on_fit_epoch_end(trainer: ResumableTrainer) -> None:
    if trainer._whole:  # Ultralytics calls this once more after its last evaluation
        trainer._whole = False
        trainer.end_epoch()


_CALLBACKS: Mapping[str, Callable[[ResumableTrainer], None]] = {
    "on_train_start": _on_train_start,
    "on_train_epoch_start": _on_train_epoch_start,
    "on_train_batch_start": _on_train_batch_start,
    "on_train_batch_end": _on_train_batch_end,
    "on_train_epoch_end": _on_train_epoch_end,
    "on_fit_epoch_end": _on_fit_epoch_end,
    "on_train_end": _on_train_end,
}
