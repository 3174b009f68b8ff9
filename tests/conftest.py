"""What every test gets: one thread, and seeds of its own."""

import logging
import random
from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
import torch

import preloaded

hypothesis.settings.register_profile(
    "detprune",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("detprune")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--real-processes",
        action="store_true",
        help="start every process of detprune anew: twice the time (see tests/preloaded.py)",
    )


def pytest_configure(config: pytest.Config) -> None:
    preloaded.real = config.getoption("--real-processes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without CUDA its tests are skipped. Files with slow tests come first: two workers then end together."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The machines that run the tests are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """A command that runs in this process, for a test or for a fixture of several, sends what detprune logs to its own
    terminal, and no longer to pytest.
    """
    logger = logging.getLogger("detprune")
    logger.propagate, logger.handlers = True, []
    logger.setLevel(logging.NOTSET)
    yield
    logger.propagate, logger.handlers = True, []
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """No test depends on which ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)  # trainings in this process switch them on
