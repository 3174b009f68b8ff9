"""What every test gets: one thread, and seeds of its own."""

import random
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile(
    "detprune",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("detprune")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The machines that run the tests are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """No test depends on which ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
