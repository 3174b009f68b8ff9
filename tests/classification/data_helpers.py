"""What the tests of the data sets share."""

from typing import Any

import pytest
import torch
from torch import Tensor

from detprune.errors import InputError
from detprune_classification.data import build_data


def everything(part: Any) -> tuple[Tensor, list[int]]:
    """Return all images of a part as one tensor, and their labels."""
    samples = [part[i] for i in range(len(part))]
    return torch.stack([image for image, _ in samples]), [label for _, label in samples]


def refused(text: str, name: str = "image_folder", **arguments: Any) -> str:
    """Return the refusal's text, which has ``text`` in it."""
    with pytest.raises(InputError) as caught:
        build_data(name, **arguments)
    assert text in str(caught.value)
    return str(caught.value)
