"""Loading weights from a file without running anything that the file contains."""

import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from detprune.errors import InputError

# What wraps a state dict (training scripts save more than weights), and what data-parallel and
# Lightning wrappers put before every key.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "model.")
_LISTED = 8

# torch's restricted unpickler interprets whatever bytes it is given, so that a file that is no
# checkpoint can fail in any of these ways; a damaged zip archive is a RuntimeError.
_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load the weights in the file ``path`` into ``model``, all of them or none.

    The file holds a state dict, plain or under ``state_dict`` or ``model``; a ``module.`` or
    ``model.`` before all keys is taken off. Batch-norm counters may be missing, as in files written
    before torch 0.4.1. Tensors go to the CPU first, then to the model's own device and dtype.

    Raises `InputError` where the file is missing, is no checkpoint or would run code when opened,
    or where names or shapes differ from the model's; the model is unchanged then.
    """
    path = Path(path).expanduser()
    state = _strip_prefixes(_find_state_dict(_read(path), path), model)
    own = model.state_dict()
    for key in own.keys() - state.keys():
        if key.endswith("num_batches_tracked"):
            state[key] = own[key]
    _check(state, own, type(model).__name__, path)
    model.load_state_dict(state)


def _read(path: Path) -> object:
    if not path.is_file():
        raise InputError(f"checkpoint {str(path)!r} does not exist or is not a file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"checkpoint {str(path)!r} cannot be read: {error}") from error
    except _UNREADABLE as error:
        # torch's own text is left out: it advises to switch the protection off.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise InputError(
                f"checkpoint {str(path)!r} was refused: opening it would run code "
                f"({wanted[1]}); save the state dict alone: torch.save(model.state_dict(), path)"
            ) from error
        raise InputError(
            f"{str(path)!r} is not a checkpoint that can be opened safely: it is damaged, of "
            "another format, or holds more than tensors; expected a file written by "
            "torch.save(model.state_dict(), path)"
        ) from error


def _find_state_dict(content: object, path: Path) -> dict[str, Any]:
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, dict):
        raise InputError(
            f"checkpoint {str(path)!r} holds a {type(content).__name__}, not a state dict"
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others or not content:
        found = f"entries that are not tensors: {_listed(others)}" if others else "nothing"
        raise InputError(
            f"checkpoint {str(path)!r} holds {found}; expected a state dict, plain or under "
            f"{' or '.join(map(repr, _WRAPPERS))}"
        )
    return content


def _strip_prefixes(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    own = model.state_dict().keys()
    for prefix in _PREFIXES:
        belongs_to_model = all(key.startswith(prefix) for key in own)
        if not belongs_to_model and all(key.startswith(prefix) for key in state):
            consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _check(state: Mapping[str, Tensor], own: Mapping[str, Tensor], kind: str, path: Path) -> None:
    """Raise one error with everything that does not fit."""
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the model"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = [
        f"{len(found)} {what}: {_listed(found)}"
        for what, found in (
            ("missing from the file", missing),
            ("unknown to the model", extra),
            ("of another shape", shapes),
        )
        if found
    ]
    if problems:
        raise InputError(
            f"checkpoint {str(path)!r} does not fit {kind} ({len(own)} tensors):\n  "
            + "\n  ".join(problems)
            + "\nbuild the model that the checkpoint was saved from: the same name, number of "
            "classes and input channels"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", and {rest} more" if rest > 0 else "")
