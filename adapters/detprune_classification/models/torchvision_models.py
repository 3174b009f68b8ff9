"""torchvision's classification models under their own names, with their pretrained weights."""

import pickle
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision import models

from detprune.errors import InputError

from .surgery import replace_classifier, set_in_channels

# Their auxiliary heads would make a training forward return tuples, and torchvision warns about a
# changing default where init_weights is left out (False is torch's own, fast initialisation).
_ARGUMENTS: dict[str, dict[str, bool]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}


def torchvision_names() -> list[str]:
    """Return the names of torchvision's classification models, sorted."""
    return list(models.list_models(module=models))


def weights_names(name: str) -> list[str]:
    """Return the names of the pretrained weights of the torchvision model ``name``."""
    return list(models.get_model_weights(name).__members__)


def build_plain(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a torchvision model with random weights for (N, in_channels, H, W) images."""
    model: nn.Module = models.get_model(name, num_classes=num_classes, **_ARGUMENTS.get(name, {}))
    set_in_channels(model, in_channels)
    return model


def build_pretrained(name: str, num_classes: int, in_channels: int, weights: str) -> nn.Module:
    """Build a torchvision model with the pretrained ``weights``, one of `weights_names`.

    The last layer is replaced by a fresh one where ``num_classes`` differs from the weights' own.
    Raises `InputError` where the images have other than 3 channels, or where the weights' file can
    neither be found in torch.hub's cache nor downloaded, or is damaged.
    """
    if in_channels != 3:
        raise InputError(
            f"in_channels is {in_channels}, but weights {weights!r} of model {name!r} take 3; "
            "use 3-channel images, or leave weights out"
        )
    entry = models.get_model_weights(name)[weights]
    _fetch(name, entry)
    model: nn.Module = models.get_model(name, weights=entry, progress=False)
    if name == "inception_v3":
        # The weights have an auxiliary head, and torchvision refuses to leave it out while loading.
        inception: Any = model
        inception.aux_logits, inception.AuxLogits = False, None
    if len(entry.meta["categories"]) != num_classes:
        replace_classifier(model, num_classes)
    return model


def _fetch(name: str, entry: Any) -> None:
    """Download the weights' file into torch.hub's cache, and open it once without running code from it.

    torchvision opens the cached file unrestricted, and that file may be one put there by hand.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(entry.url).path).name
    way_out = f"download {entry.url} on a machine that can, and put it at {str(target)!r}"
    try:
        entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"the weights {entry.name} of model {name!r} could not be downloaded ({error}); "
            f"{way_out}"
        ) from error
    except (pickle.UnpicklingError, EOFError, RuntimeError, LookupError, ValueError) as error:
        raise InputError(
            f"the weights {entry.name} of model {name!r} are damaged or would run code when "
            f"opened; delete the file if there is one, {way_out}"
        ) from error
