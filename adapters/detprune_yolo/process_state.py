"""What Ultralytics changes in a process, put back."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from ultralytics.utils import LOGGER


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ultralytics off the terminal."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)  # also switches progress bars off
    try:
        yield
    finally:
        LOGGER.setLevel(level)


@contextmanager
def as_before(device: torch.device) -> Iterator[None]:
    """Put back what a validation changes in the process: random states, threads, current GPU."""
    python, numpy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    cuda = device.type == "cuda" or torch.cuda.is_initialized()
    current = torch.cuda.current_device() if cuda else None
    with torch.random.fork_rng(range(torch.cuda.device_count()) if cuda else ()), quiet():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.set_num_threads(threads)
            if current is not None:
                torch.cuda.set_device(current)
