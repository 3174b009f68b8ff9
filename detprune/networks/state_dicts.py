"""The search for a network's weights in the content of a checkpoint.

Training scripts store weights under a key (``state_dict``, ``model``, ``ema``), and data-parallel,
compiling and Lightning wrappers put a prefix before all names (``module.``, ``_orig_mod.``, ``network.``).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detprune.errors import InputError, listed
from detprune.loggers import logger

LOGGER = logger(__name__)

_FIRST = ("model", "state_dict", "model_state_dict", "network", "net", "weights", "params")
_IN_PARTS = (  # two of the names that torch writes in place of a weight's own, and what makes one weight of them
    ("weight_orig", "weight_mask", "torch.nn.utils.prune.remove(module, 'weight')"),
    ("weight_orig", "weight_u", "torch.nn.utils.remove_spectral_norm(module)"),
    ("weight_g", "weight_v", "torch.nn.utils.remove_weight_norm(module)"),
)
_PARAMETRIZED = ".parametrizations."
_DEPTH = 3  # {"ema": {"module": {"state_dict": …}}}


@dataclass(frozen=True)
class Weights:
    """A state dict that was found in a file.

    Attributes:
        key: place of the state dict, such as ``ema.module``; empty if the file holds nothing else.
        prefix: the prefix that was removed from every name.
        tensors: names without the prefix → values.
        others: names without the prefix, which are left out.
        matched: number of the wanted names that it has.
    """

    key: str
    prefix: str
    tensors: dict[str, Tensor]
    others: tuple[str, ...]
    matched: int

    def __str__(self) -> str:
        where = f"under {self.key!r}" if self.key else "at the top"
        return f"{where}, names with {self.prefix!r} before them" if self.prefix else where


def find_weights(content: object, names: Collection[str], path: str | Path) -> Weights | None:
    """The state dict with the most of ``names``, all behind one prefix; None where none has any.

    Of several that have all of them, the first in the order plain weights, anything else (averaged
    ones) is taken; which one, and which are left out, is logged.

    Args:
        content: the result of ``safe_load``.
        names: names of the network's floating-point weights.
        path: the file, for messages.

    Raises:
        InputError: one state dict holds several such networks behind different prefixes, or weights that no layer can
            take as they are.
    """
    found = [
        weights
        for key, state in _state_dicts(content)
        for weights in _behind_prefixes(key, state, names)
    ]
    best = max(found, key=lambda weights: weights.matched, default=None)
    if best is not None:
        _check_plain(best.tensors, path)
    if best is None or best.matched < len(names):
        _check_whole(content, path)
        return best
    whole = [weights for weights in found if weights.matched == best.matched]
    siblings = [weights.prefix for weights in whole if weights.key == best.key]
    if len(siblings) > 1:
        raise InputError(
            f"{path} holds {len(siblings)} networks that fit, with {listed(map(repr, siblings))} before "
            "their names; save the weights of one alone: torch.save(net.state_dict(), path)"
        )
    if len(whole) > 1:
        rest = listed(repr(weights.key) for weights in whole if weights is not best)
        LOGGER.warning("%s: took the weights %s; there are also %s", path, best, rest)
    elif best.key or best.prefix:
        LOGGER.info("%s: took the weights %s", path, best)
    if best.others:
        LOGGER.warning("%s: ignored weights that the network lacks: %s", path, listed(best.others))
    return best


def elsewhere(missing: Collection[str], others: Collection[str]) -> dict[str, str]:
    """Names that a state dict lacks → the one name, behind another prefix, under which the file has them."""
    places = {
        name: [held for held in others if held == name or held.endswith(f".{name}")]
        for name in missing
    }
    return {name: held[0] for name, held in places.items() if len(held) == 1}


def _check_plain(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse tensors that cannot be copied into a plain one, or lose a part of their values there."""
    strange = [f"{name} is {kind}" for name, value in tensors.items() if (kind := _form(value))]
    if strange:
        raise InputError(
            f"{path} holds tensors that are no plain numbers: {listed(strange)}; save the weights of the network in "
            "floating point, as it was trained: torch.save(net.state_dict(), path)"
        )


def _check_whole(content: object, path: str | Path) -> None:
    """Refuse weights that masks, weight norm or another parametrization keep in parts."""
    for _, state in _state_dicts(content):
        parts = {
            "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')": [
                name for name in state if _PARAMETRIZED in f".{name}"
            ]
        }
        for first, second, way_out in _IN_PARTS:
            owners = [name.removesuffix(first) for name in state if name.endswith(first)]
            parts[way_out] = [
                own + end for own in owners if own + second in state for end in (first, second)
            ]
        for way_out, names in parts.items():
            if names:
                raise InputError(
                    f"{path} holds weights in parts: {listed(names)}; where it was written, make one weight of them "
                    f"with {way_out} for each such module, and save it again: torch.save(net.state_dict(), path)"
                )


def _form(value: Tensor) -> str | None:
    if value.is_meta:
        return "without values (device meta)"
    if value.is_quantized:
        return f"quantized ({str(value.dtype).removeprefix('torch.')})"
    if value.layout != torch.strided:
        return f"sparse ({str(value.layout).removeprefix('torch.')})"
    return "complex" if value.is_complex() else None


def _state_dicts(
    content: object, key: str = "", depth: int = _DEPTH
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every mapping that holds tensors, with its place; plain weights come first."""
    if not isinstance(content, Mapping):
        return
    inner = {str(name): value for name, value in content.items() if isinstance(name, str)}
    own = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if own:
        yield key, own
    for name in sorted(inner, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST)):
        if depth:
            yield from _state_dicts(inner[name], f"{key}.{name}" if key else name, depth - 1)


def _behind_prefixes(
    key: str, state: dict[str, Tensor], names: Collection[str]
) -> Iterator[Weights]:
    """The state dict behind each prefix that has all of ``names``, or else the most of them."""
    counts: Counter[str] = Counter()
    for name, value in state.items():
        parts = name.split(".") if value.is_floating_point() else []
        for place in range(len(parts)):
            end = ".".join(parts[place:])
            if end in names:
                counts[name.removesuffix(end)] += 1
    whole = [prefix for prefix, count in counts.items() if count == len(names)]
    if not whole and counts:
        prefix, count = counts.most_common(1)[0]
        whole = [prefix if 2 * count > len(names) else ""]
    for prefix in whole:
        yield Weights(
            key,
            prefix,
            {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)},
            tuple(n for n in state if not n.startswith(prefix)),
            counts[prefix],
        )
