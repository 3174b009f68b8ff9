# SPDX-License-Identifier: AGPL-3.0-or-later
"""Masks in checkpoints: as the zeros of the stored weights, or as bits.

In a file with the pruned weights, a mask is stored by their zeros, plus the positions of kept weights that are zero too
(small ones become zero in half precision). That takes almost no space. Where the weights still change, a mask is stored
as bits, eight weights per byte.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from detprune.errors import InputError

Packed = dict[str, dict[str, Any]]
"""Parameter name → ``shape`` and either ``kept_zeros`` (int32 places, ascending) or ``bits`` (uint8)."""


def pack_beside(stored: nn.Module, masks: Mapping[str, Tensor]) -> Packed:
    """Pack masks for a file that also holds the weights of ``stored``, which are zero outside the masks.

    Args:
        stored: the network as it is written, at its precision.
        masks: parameter name → boolean tensor of that parameter's shape, True = kept.
    """
    weights = dict(stored.named_parameters())
    packed = {}
    for name, mask in masks.items():
        own = mask.cpu()
        places = (own & (weights[name].detach().cpu() == 0)).reshape(-1).nonzero().reshape(-1)
        if 32 * len(places) > own.numel():  # int32 positions would take more bytes than bits
            packed[name] = _bits(own)
        else:
            packed[name] = {"shape": list(own.shape), "kept_zeros": places.int()}
    return packed


def pack_bits(masks: Mapping[str, Tensor]) -> Packed:
    """Pack masks as bits, independent of any weights."""
    return {name: _bits(mask.cpu()) for name, mask in masks.items()}


def unpack(
    packed: Mapping[str, Any], weights: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Parameter name → boolean tensor, True = kept.

    Args:
        packed: the masks in a file; one of an earlier version holds all masks as bits.
        weights: the parameters in the same file, on the CPU.
        path: path of the file, for errors.

    Raises:
        InputError: a mask does not fit its weight.
    """
    return {
        name: _unpacked(name, dict(entry), weights.get(name), path)
        for name, entry in packed.items()
    }


def _bits(mask: Tensor) -> dict[str, Any]:
    bits = np.packbits(mask.numpy().reshape(-1))
    return {"shape": list(mask.shape), "bits": torch.from_numpy(bits)}


def _unpacked(name: str, entry: Mapping[str, Any], weight: Tensor | None, path: Path) -> Tensor:
    shape = tuple(entry.get("shape", ()))
    wanted = None if weight is None else tuple(weight.shape)
    size = int(np.prod(shape))
    places, bits = entry.get("kept_zeros"), entry.get("bits")
    if shape == wanted and weight is not None and _is_of(places, torch.int32):
        mask = (weight.detach() != 0).reshape(-1)
        if not len(places) or (int(places.min()) >= 0 and int(places.max()) < size):
            mask[places.long()] = True
            return mask.reshape(shape)
    if shape == wanted and _is_of(bits, torch.uint8) and bits.numel() == -(-size // 8):
        flat = np.unpackbits(bits.numpy(), count=size).astype(bool)
        return torch.from_numpy(flat.reshape(shape))
    held = f"{bits.numel()} bytes" if _is_of(bits, torch.uint8) else "places of zeros"
    raise InputError(
        f"{path}: the mask of {name} ({held} for the shape {shape}) does not fit the weight of shape {wanted}; the "
        "file is damaged or was edited, take another copy"
    )


def _is_of(value: object, dtype: torch.dtype) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.dtype == dtype and value.dim() == 1
