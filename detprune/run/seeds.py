"""Seeds that are a function of where training stands, so that an interrupted epoch can be run again."""

import random
import zlib

import numpy as np
import torch


def derive_seed(seed: int, *parts: object) -> int:
    """A seed below 2³² that any change of any part changes."""
    return zlib.crc32(repr((seed, *parts)).encode())


def seed_all(seed: int) -> None:
    """Seed the generators of Python, numpy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
