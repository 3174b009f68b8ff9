"""Seeds that are a function of stage and epoch, so that an interrupted epoch can be repeated exactly."""

import random
import zlib

import numpy as np
import torch


def derive_seed(seed: int, *parts: object) -> int:
    """A seed below 2³², derived from a seed and all parts by a hash."""
    return zlib.crc32(repr((seed, *parts)).encode())


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
