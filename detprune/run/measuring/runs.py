"""The measurement of the gain at the end of a run."""

from detprune.errors import DetpruneError
from detprune.loggers import logger
from detprune.run.measurements import Measurement
from detprune.run.measuring.measurement import measure_networks
from detprune.run.measuring.sources import compared, networks_of
from detprune.run.task import Task

LOGGER = logger(__name__)

_ROUNDS = 20
_SECONDS = 4.0  # most seconds per runtime


def measure_run(task: Task) -> Measurement | None:
    """Measure the dense and the pruned network of a finished run, on one thread of the processor.

    It takes about ten seconds, and a run does not fail by it: what cannot be measured is noted, and None is
    returned where nothing can be.

    Args:
        task: task of a run whose pruned.pt and checkpoints/dense.pt are written.
    """
    try:
        found = compared(*networks_of(task))
        return measure_networks(
            found.before,
            found.after,
            found.inputs,
            pt_bytes=found.pt_bytes,
            rounds=_ROUNDS,
            seconds=_SECONDS,
        )
    except (DetpruneError, RuntimeError, OSError) as error:
        LOGGER.warning("sizes and latency were not measured: %s", error)
        return None
