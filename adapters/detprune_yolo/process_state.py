# SPDX-License-Identifier: AGPL-3.0-or-later
"""Context managers that undo what Ultralytics changes in a process."""

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils import LOGGER, ONLINE, downloads


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress Ultralytics' output in the terminal."""
    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)  # also switches progress bars off
    try:
        yield
    finally:
        LOGGER.setLevel(level)


@contextmanager
def as_before(device: torch.device) -> Iterator[None]:
    """Restore what a validation changes in the process: random states, threads, current GPU."""
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


@contextmanager
def no_downloads() -> Iterator[None]:
    """Offline, answer every download of Ultralytics with a ConnectionError.

    Its check of mixed precision on a GPU would download a network even offline; after the error it skips the
    check.
    """
    if ONLINE:
        yield
        return
    stock = downloads.attempt_download_asset

    def local(file: Any, *args: Any, **options: Any) -> Any:
        if not Path(str(file)).exists():
            raise ConnectionError(f"{file} is not here, and YOLO_OFFLINE=1 forbids to fetch it")
        return stock(file, *args, **options)

    downloads.attempt_download_asset = local
    try:
        yield
    finally:
        downloads.attempt_download_asset = stock
