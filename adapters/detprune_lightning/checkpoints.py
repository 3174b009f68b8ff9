"""Checkpoints of a stage: written whole or not at all, and refused where a part is missing."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

import lightning as L
from detprune.errors import InputError
from detprune.files import load_tensors
from detprune.files.atomic import atomic

_KINDS: Mapping[str, type] = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
}
"""The entries of a checkpoint that Lightning needs to resume, with their types."""

_VERSION = r"([2-9]|[1-9]\d+)(\.\d+)+((a|b|rc|\.?dev|\.?post)\d+)*(\+[\w.]+)?\Z"
"""Versions 2 and newer; Lightning converts checkpoints of older versions, which detprune never wrote."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside the old one and renames it, so that a kill leaves one of them whole.

    Lightning's own class writes to the system's temporary folder and moves the file. Across file systems
    that is a copy, which a kill leaves half done.

    Args:
        module: the network whose checkpoints are read; any network, if left out.
        stage: the stage whose checkpoints are read.
        callbacks: callbacks of the stage. A checkpoint must hold the state of each that has one, because
            Lightning would start such a callback from zero without a warning.
    """

    def __init__(
        self,
        module: L.LightningModule | None = None,
        stage: str = "",
        callbacks: Sequence[L.Callback] = (),
    ) -> None:
        super().__init__()
        self._module, self._stage = module, stage
        self._stateful = [c.state_key for c in callbacks if _has_state(c)]

    def load_checkpoint(
        self,
        path: Any,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint of this stage and this network.

        Raises:
            InputError: the file is damaged, or of another network or stage.
        """
        file = Path(path)
        way_out = f"delete {file.parent} and resume, to train this stage again"
        content = load_tensors(file, way_out)
        if lacking := [key for key in _KINDS if key not in content]:
            raise InputError(f"{file} lacks {', '.join(lacking)}; {way_out}")
        wrong = [key for key, kind in _KINDS.items() if not isinstance(content[key], kind)]
        if not wrong:
            parts = {
                "optimizer_states": content["optimizer_states"],
                "lr_schedulers": content["lr_schedulers"],
                "callbacks": content["callbacks"].values(),
                "loops": [content["loops"].get("fit_loop")],
            }
            wrong = [
                key
                for key, values in parts.items()
                if not all(isinstance(value, dict) for value in values)
            ]
        if wrong:
            raise InputError(f"{file} holds another type of value as {', '.join(wrong)}; {way_out}")
        if not re.match(_VERSION, content["pytorch-lightning_version"]):
            raise InputError(
                f"{file} is of Lightning {content['pytorch-lightning_version']!r}, allowed is 2 or newer; {way_out}"
            )
        states = content["callbacks"]
        if lacking := [key for key in self._stateful if not states.get(key)]:
            raise InputError(f"{file} lacks the state of {', '.join(lacking)}; {way_out}")
        own = {} if self._module is None else self._module.state_dict()
        state = content["state_dict"]
        if own and _forms(state) != _forms(own):
            raise InputError(f"{file} is of another network; {way_out}")
        of = states.get("EventLog", {}).get("stage", self._stage)
        if of != self._stage:
            raise InputError(f"{file} is of the stage {of!r}, not {self._stage!r}; {way_out}")
        return content

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint to a local path."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def _forms(state: Mapping[str, Any]) -> dict[str, Any]:
    """Shape and type of every tensor."""
    return {
        name: (value.shape, value.dtype) if isinstance(value, torch.Tensor) else None
        for name, value in state.items()
    }


def _has_state(callback: L.Callback) -> bool:
    """Whether a callback writes a state of its own into checkpoints."""
    return type(callback).state_dict is not L.Callback.state_dict
