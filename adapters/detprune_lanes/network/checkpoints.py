"""Checkpoints in the form of Ultra-Fast-Lane-Detection's scripts: each side loads those of the other."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.optim import Optimizer

from detprune.errors import InputError
from detprune.files import safe_load
from detprune.loggers import logger
from detprune.networks.state_dicts import find_weights
from detprune.run.task import plain_state_dict
from detprune_lanes.network.model import POOLED_CHANNELS, STRIDE, LaneNetwork
from detprune_lanes.network.trunks import trunks_of

LOGGER = logger(__name__)

_AUXILIARY = "aux_"
_NEEDED = {"pool.weight": 4, "cls.0.weight": 2, "cls.2.weight": 2, "model.conv1.weight": 4}  # dims
_WANTED = "a checkpoint of Ultra-Fast-Lane-Detection or of detprune's lane networks"
_GRIDS = {
    22_624: "100 cells × 56 rows × 4 lanes as for TuSimple",
    14_472: "200 cells × 18 rows × 4 lanes as for CULane",
}
_USUAL_ASPECT = 800 / 288
_LISTED = 3


class Architecture(NamedTuple):
    """Architecture of a lane network, as the shapes in its state dict show it.

    Attributes:
        trunks: the names it can be; none where a trunk is not torchvision's.
        outputs: (cells + 1) · rows · lanes.
        features: inputs of the first linear layer, 8 · H/32 · W/32.
        use_aux: whether there is an auxiliary branch.
    """

    trunks: tuple[str, ...]
    outputs: int
    features: int
    use_aux: bool

    def __str__(self) -> str:
        trunk = " or ".join(self.trunks) or "of another network than torchvision's"
        grid = _GRIDS.get(self.outputs, "(cells + 1) · rows · lanes")
        return (
            f"trunk {trunk}, {self.outputs:,} outputs ({grid}), {self.features:,} pooled features "
            f"({_example_size(self.features)}), {'with' if self.use_aux else 'without'} auxiliary branch"
        )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a lane network in a file, on the CPU.

    It may stand alone or under any key (``model``, ``state_dict``, ``ema``); what wrappers such as
    DataParallel put before the names is taken off. Nothing that the file holds is run.

    Raises:
        InputError: a file that cannot be opened safely, or holds no lane network.
    """
    content = safe_load(path, _WANTED)
    found = find_weights(content, _NEEDED, path)
    if found is not None and all(
        name in found.tensors and found.tensors[name].dim() == dims
        for name, dims in _NEEDED.items()
    ):
        return found.tensors
    raise InputError(f"{path} holds {_look(content)}; give {_WANTED}")


def load_checkpoint(model: LaneNetwork, path: str | Path) -> tuple[str, ...]:
    """Load a file into a network, all of it or nothing; return the names that the file has no values for.

    An auxiliary branch that only the file has is left out, and one that only the network has keeps
    its values: both are logged. Batch-norm counters may be missing, as in files of torch before 0.4.1.

    Raises:
        InputError: what ``read_checkpoint`` raises, or the file is of another network; the message
            says of which.
    """
    state = read_checkpoint(path)
    own = model.state_dict()
    left_out = {name for name in state if name.startswith(_AUXILIARY) and not model.use_aux}
    kept = {
        name
        for name in own.keys() - state.keys()
        if name.endswith("num_batches_tracked")
        or (name.startswith(_AUXILIARY) and not _has_aux(state))
    }
    problems = _problems({n: v for n, v in state.items() if n not in left_out}, own, kept)
    if problems:
        height, width = model.size
        raise InputError(
            f"{path} does not fit the network.\n"
            f"  file: {describe(state)}\n"
            f"  network: trunk {model.trunk}, {model.grid.outputs:,} outputs ({model.grid.cells} cells × "
            f"{model.grid.rows} rows × {model.grid.lanes} lanes), size {height} × {width}\n  "
            + "\n  ".join(problems)
            + "\nbuild the network that the file belongs to (trunk, grid and size), or give another file"
        )
    model.load_state_dict({**own, **{n: state[n] for n in own if n in state}})
    if left_out:
        LOGGER.info("%s: its auxiliary branch is not loaded, because the network has none", path)
    unset = tuple(name for name in own if name in kept)
    if any(name.startswith(_AUXILIARY) for name in unset):
        LOGGER.warning(
            "%s has no auxiliary branch; that of the network keeps its present weights", path
        )
    return unset


def describe(state: Mapping[str, Tensor]) -> Architecture:
    """Architecture of the lane network that a state dict from ``read_checkpoint`` belongs to."""
    shapes = {n.removeprefix("model."): v.shape for n, v in state.items() if n.startswith("model.")}
    return Architecture(
        trunks=trunks_of(shapes),
        outputs=state["cls.2.weight"].shape[0],
        features=state["cls.0.weight"].shape[1],
        use_aux=_has_aux(state),
    )


def checkpoint(
    model: LaneNetwork, *, drop_aux: bool = False, optimizer: Optimizer | None = None
) -> dict[str, Any]:
    """The content of a checkpoint that the original's scripts load: copies, on the CPU.

    Their ``--resume`` wants the epoch in the file's name, ``ep###.pth``, and goes on with the
    optimizer's state if the file has one; that fits where it holds all parameters in their order.

    Raises:
        InputError: an optimizer that holds an auxiliary branch which is dropped.
    """
    dropped = drop_aux and model.use_aux
    if dropped and optimizer is not None:
        raise InputError(
            "the optimizer's state counts the parameters of the auxiliary branch too, so it does not fit "
            "a file without that branch; give drop_aux or optimizer, not both"
        )
    weights = {
        name: value
        for name, value in plain_state_dict(model).items()
        if not (dropped and name.startswith(_AUXILIARY))
    }
    if optimizer is None:
        return {"model": weights}
    held = optimizer.state_dict()
    states = {
        number: {
            name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
            for name, value in entries.items()
        }
        for number, entries in held["state"].items()
    }
    return {"model": weights, "optimizer": {**held, "state": states}}


def _has_aux(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(_AUXILIARY) for name in state)


def _state_dicts(content: object) -> Iterable[dict[str, Tensor]]:
    if isinstance(content, dict):
        for candidate in (content.get("model"), content.get("state_dict"), content):
            if isinstance(candidate, dict):
                yield {str(n): v for n, v in candidate.items() if isinstance(v, Tensor)}


def _problems(state: Mapping[str, Tensor], own: Mapping[str, Tensor], kept: set[str]) -> list[str]:
    missing = [name for name in own if name not in state and name not in kept]
    extra = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} in the file, {tuple(value.shape)} in the network"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    return [
        f"{len(found)} {what}: {_listed(found)}"
        for what, found in (
            ("missing from the file", missing),
            ("unknown to the network", extra),
            ("of another shape", shapes),
        )
        if found
    ]


def _listed(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", and {rest} more" if rest > 0 else "")


def _example_size(features: int) -> str:
    """An image size of a usual shape that gives this number of features."""
    squares = features // POOLED_CHANNELS
    if squares * POOLED_CHANNELS != features or not squares:
        return "of no image size"
    heights = [h for h in range(1, squares + 1) if squares % h == 0]
    height = min(heights, key=lambda h: abs(math.log(squares / h / h / _USUAL_ASPECT)))
    return f"as of {height * STRIDE} × {squares // height * STRIDE} images"


def _look(content: object) -> str:
    """Describe the content of a file that holds no lane network."""
    if not isinstance(content, dict):
        return f"a {type(content).__name__}, not a state dict"
    names = max(map(set, _state_dicts(content)), key=len)
    ends = {name.removeprefix("module.").removeprefix("model.") for name in names}
    if {"cls.1.weight", "cls.3.weight", "pool.weight"} <= ends:
        return "a network of Ultra-Fast-Lane-Detection-v2, which is another one"
    if {"conv1.weight", "layer4.0.conv1.weight", "fc.weight"} <= ends:
        return (
            "a ResNet classifier, such as torchvision's, which a trunk starts from with "
            "load_imagenet (model: imagenet: in a recipe)"
        )
    if {"conv1.weight", "layer4.0.conv1.weight"} <= ends:
        return "a residual trunk without a lane network's pool, cls.0 and cls.2"
    if any(re.match(r"model\.\d+\.", name) for name in names):
        return "the weights of an Ultralytics network, which recipes with task: yolo take as checkpoints"
    keys = ", ".join(map(repr, list(content)[:8])) or "no keys"
    return f"a dict with {keys}"
