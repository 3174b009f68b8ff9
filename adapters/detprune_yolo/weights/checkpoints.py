# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics checkpoints: read safely, and written so that plain ``YOLO(path)`` takes them.

A pruned checkpoint has the keys that Ultralytics leaves after training, and one more, ``detprune``, for the
masks. A mask is the zeros of the weights in the file, without the kept weights that are zero too: small weights
become zero in half precision, so ``detprune`` lists their positions.
"""

import copy
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel, torch_safe_load
from ultralytics.utils import DEFAULT_CFG_DICT

import detprune
from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.files.atomic import atomic
from detprune.files.deflated import save_deflated
from detprune_yolo.descriptions import check_network
from detprune_yolo.environment import UNSAFE_LOAD
from detprune_yolo.kinds import kind_of, use_one_to_one
from detprune_yolo.weights.diagnosis import (
    LOADING_ERRORS,
    of_another_version,
    refuse_foreign_file,
    refused_code,
)
from detprune_yolo.weights.filenames import check_output_name, opened_instead
from detprune_yolo.weights.masks import pack_beside, pack_bits, unpack
from detprune_yolo.weights.references import damaged

_CARRIED = "detprune_masks"  # attribute of a network; files that detprune writes have the key ``detprune`` instead


def load_model(path: Path, *, trust: bool = False) -> BaseModel:
    """The network of an Ultralytics checkpoint: float32, on the CPU, in eval mode, all of it trainable.

    As Ultralytics does, the EMA is taken if the file holds one, and ``names``, ``yaml``, ``stride``,
    ``args`` (a dict), ``task`` and ``pt_path`` are set. Ultralytics' checkpoints forbid gradients
    everywhere; here only the fixed weights under ``.dfl.`` have ``requires_grad`` False. A network with a one-to-one
    branch runs that branch (``end2end``).

    Args:
        path: a ``.pt`` file on this machine.
        trust: run whatever code the file carries, instead of allowing known classes only; as with the variable
            DETPRUNE_UNSAFE_LOAD=1.

    Raises:
        InputError: the file is missing, damaged, of another format, a network that cannot be pruned, or wants to run
            code.
    """
    checkpoint = _read(path, trust)
    model = _network(path, checkpoint).float()
    task = kind_of(model).task
    _set(
        model,
        args={**DEFAULT_CFG_DICT, **(checkpoint.get("train_args") or {}), "task": task},
        pt_path=str(path),
        task=task,
    )
    use_one_to_one(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            _set(module, inplace=True)
        elif isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # written by torch before 1.11
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".dfl." not in name)
    return model.eval()


def pruned_checkpoint(
    model: BaseModel,
    masks: Mapping[str, Tensor] | None,
    *,
    train_args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a checkpoint that plain ``YOLO(path)`` loads, validates, trains and exports.

    The model goes in as a copy in half precision, without gradients, hooks and loss; the given one is
    not changed. The file loads with ``weights_only`` and without detprune.

    Args:
        model: the network; weights outside the masks are exactly 0.
        masks: parameter name → boolean tensor of that parameter's shape, True = kept.
        train_args: Ultralytics' training settings, unknown keys are left out; None: ``model.args``.

    Raises:
        InputError: a mask without parameter or of another shape, or a model made of detprune's classes.
        DetpruneError: a weight outside its mask is not zero.
        NonFiniteError: a weight is NaN or infinite.
    """
    if own := sorted({type(m).__name__ for m in model.modules() if _is_ours(m)}):
        raise InputError(
            f"the model contains {', '.join(own)}, which only detprune can load; take the network out of it"
        )
    if masks is not None:
        _check_masks(model, masks)
    given = _settings(model) if train_args is None else train_args
    kind = kind_of(model)
    settings = {k: _plain(given.get(k, v)) for k, v in DEFAULT_CFG_DICT.items()}
    settings.update(task=kind.task, imgsz=_plain(given.get("imgsz", kind.imgsz)))
    stripped = _stripped(model, settings)
    return {
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "epoch": -1,
        "best_fitness": None,
        "stopper": None,
        "model": stripped,
        "ema": None,
        "updates": None,
        "modelopt": None,
        "optimizer": None,
        "scaler": None,
        "train_args": settings,
        "train_metrics": None,
        "train_results": None,
        "detprune": {
            "version": detprune.__version__,
            "masks": None if masks is None else pack_beside(stripped, masks),
        },
    }


def save_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint to a file, deflated and atomically.

    Raises:
        InputError: a name that Ultralytics would not open.
    """
    check_output_name(path)
    with atomic(path) as temporary:
        save_deflated(dict(checkpoint), temporary)


def carry_masks(model: BaseModel, masks: Mapping[str, Tensor]) -> None:
    """Attach masks to a network, so that the checkpoints that Ultralytics itself writes hold them.

    They are a plain attribute of the network, which its copies have too: Ultralytics adds no key of others
    to its files, and keeps the network in them.
    """
    _check_masks(model, masks)
    _set(model, **{_CARRIED: {"version": detprune.__version__, "masks": pack_bits(masks)}})


def read_masks(path: Path, *, trust: bool = False) -> dict[str, Tensor] | None:
    """The masks in a checkpoint: parameter name → boolean tensor, True = kept; None if it has none.

    Raises:
        InputError: masks that are damaged or do not fit the network in the file; and what ``load_model``
            raises.
    """
    checkpoint = _read(path, trust)
    network = _network(path, checkpoint)
    held = checkpoint.get("detprune") or getattr(network, _CARRIED, None)
    packed = held.get("masks") if isinstance(held, dict) else None
    if packed is None:
        return None
    return unpack(packed, dict(network.named_parameters()), path)


def train_args_of(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Ultralytics' training settings in a checkpoint; it raises the errors of ``load_model``."""
    return dict(_read(path, trust).get("train_args") or {})


def _read(path: Path, trust: bool) -> dict[str, Any]:
    path = Path(path)
    trust = trust or os.environ.get(UNSAFE_LOAD) == "1"
    refuse_foreign_file(path)
    opened = opened_instead(str(path))
    if path.suffix.lower() != ".pt" or opened is not None:
        instead = "" if opened is None else f" (it would look for {opened})"
        raise InputError(
            f"{path}: Ultralytics does not open a checkpoint under this name{instead}; rename the file, "
            "for example to start.pt"
        )
    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=not trust)
    except ModuleNotFoundError as error:
        raise of_another_version(path) or InputError(
            f"{path} needs the module {error.name!r} to load, which is not installed; install the package "
            "it was written with, or save the network there as a plain Ultralytics checkpoint"
        ) from error
    except LOADING_ERRORS as error:
        refused = of_another_version(path) or (None if trust else refused_code(path))
        raise refused or damaged(path, error) from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path} holds a {type(checkpoint).__name__}, which is no checkpoint")
    return checkpoint


def _network(path: Path, checkpoint: Mapping[str, Any]) -> BaseModel:
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{path} holds no network under 'ema' or 'model' (keys: {', '.join(map(str, checkpoint))}); "
            "give a checkpoint that Ultralytics or detprune wrote"
        )
    if checkpoint.get("modelopt"):
        raise InputError(
            f"{path} is a quantization-aware checkpoint, which cannot be pruned; prune the model before"
        )
    check_network(model, path)
    network: BaseModel = model
    return network


def _set(module: nn.Module, **attributes: object) -> None:
    """Set plain attributes of a module, which torch's type hints do not allow."""
    for name, value in attributes.items():
        setattr(module, name, value)


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] in ("detprune", "detprune_yolo")


def _settings(model: BaseModel) -> Mapping[str, Any]:
    args = getattr(model, "args", None) or {}
    return args if isinstance(args, Mapping) else vars(args)


def _plain(value: Any) -> Any:
    """A value in types that ``weights_only`` loads, without classes such as Path or torch.device."""
    if isinstance(value, Mapping):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round weights and statistics in place to half precision, as in a checkpoint; too large values are clamped."""
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.nan_to_num(tensor.half()))


def _stripped(model: BaseModel, settings: Mapping[str, Any]) -> BaseModel:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise NonFiniteError(
                f"{name} contains NaN or infinity: training has diverged, and the model is not saved"
            )
    # hooks and the loss refer to trainers and pruners: they are not copied, and the model keeps them
    memo: dict[int, Any] = {
        id(held): type(held)()
        for module in model.modules()
        for key, held in vars(module).items()
        if "_hooks" in key and isinstance(held, dict)
    }
    if (criterion := getattr(model, "criterion", None)) is not None:
        memo[id(criterion)] = None
    stripped = copy.deepcopy(model, memo).cpu().half().to(memory_format=torch.contiguous_format)
    for tensor in stripped.state_dict().values():
        if tensor.is_floating_point():
            torch.nan_to_num_(tensor)  # beyond half precision's range: clamp to its largest number
    stripped.requires_grad_(False)
    _set(stripped, args=dict(settings))
    if hasattr(stripped, _CARRIED):
        delattr(stripped, _CARRIED)  # they may be those of another pruning
    if hasattr(stripped, "pt_path"):
        del stripped.pt_path  # set again by loading
    return stripped.eval()


def _check_masks(model: BaseModel, masks: Mapping[str, Tensor]) -> None:
    weights = dict(model.named_parameters())
    for name, mask in masks.items():
        if name not in weights or mask.shape != weights[name].shape or mask.dtype != torch.bool:
            shape = tuple(weights[name].shape) if name in weights else None
            raise InputError(
                f"the mask {name} ({mask.dtype}, shape {tuple(mask.shape)}) has to be torch.bool of the "
                f"shape of its weight: {shape or 'the model has no such parameter'}"
            )
        wrong = int(weights[name].detach()[~mask.to(weights[name].device)].count_nonzero())
        if wrong:
            raise DetpruneError(
                f"{name}: {wrong:,} weights outside the mask are not zero; prune before saving"
            )
