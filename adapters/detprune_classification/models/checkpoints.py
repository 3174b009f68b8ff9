"""Loading weights from a file without running anything that the file contains."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

from detprune.errors import InputError
from detprune.files import safe_load
from detprune.networks.state_dicts import Weights, elsewhere, find_weights

_WANTED = "a checkpoint of the same network, written by torch.save(model.state_dict(), path)"
_LISTED = 8


def load_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Load the weights in the file ``path`` into ``model``, all of them or none.

    The file holds a state dict, plain or under any key, such as ``state_dict``, ``model`` or ``ema``
    (which one is logged); what wrappers put before all names, such as ``module.``, ``_orig_mod.`` or
    ``network.``, is taken off. Batch-norm counters may be missing, as in files written before torch
    0.4.1. Tensors go to the CPU first, then to the model's own device and dtype.

    Raises `InputError` where the file is missing, is no checkpoint or would run code when opened,
    or where names or shapes differ from the model's; the model is unchanged then.
    """
    path = Path(path).expanduser()
    content = safe_load(path, _WANTED)
    own = model.state_dict()
    found = find_weights(content, {n for n, v in own.items() if v.is_floating_point()}, path)
    if found is None:
        raise InputError(f"{path} holds {_look(content)}; give {_WANTED}")
    state = found.tensors
    for key in own.keys() - state.keys():
        if key.endswith("num_batches_tracked"):
            state[key] = own[key]
    _check(found, own, type(model).__name__, path)
    model.load_state_dict(state)


def _look(content: object) -> str:
    """Describe the content of a file that does not hold the network's weights."""
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}, not a state dict"
    if not content:
        return "nothing"
    return f"none of the network's weights, but a dict with {_listed(map(repr, content))}"


def _check(found: Weights, own: Mapping[str, Tensor], kind: str, path: Path) -> None:
    """Raise one error that lists every tensor that does not fit."""
    state = found.tensors
    missing = [key for key in own if key not in state]
    extra = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} in the file, {tuple(tensor.shape)} in the model"
        for key, tensor in own.items()
        if key in state and state[key].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what}: {_listed(names)}"
        for what, names in (
            ("missing from the file", missing),
            ("unknown to the model", extra),
            ("of another shape", shapes),
        )
        if names
    ]
    renamed = elsewhere(missing, found.others)
    if problems and missing and len(renamed) == len(missing):
        pairs = [f"{name} is {held} in the file" for name, held in renamed.items()]
        prefixes = dict.fromkeys([found.prefix, *(h.removesuffix(n) for n, h in renamed.items())])
        cut = "".join(f".removeprefix({prefix!r})" for prefix in prefixes if prefix)
        raise InputError(
            f"{path} has its tensors behind several prefixes, of which one alone is taken off "
            f"({found.prefix!r}): {_listed(pairs)}; take all of them off: "
            f"torch.save({{name{cut}: value for name, value in state.items()}}, path), where state is "
            f"{f'the entry {found.key!r} of the file' if found.key else 'the content of the file'}"
        )
    if problems:
        raise InputError(
            f"{path} does not fit {kind} ({len(own)} tensors):\n  "
            + "\n  ".join(problems)
            + "\nbuild the model that the checkpoint was saved from: the same name, number of "
            "classes and input channels"
        )


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", and {rest} more" if rest > 0 else "")
