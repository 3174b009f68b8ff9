"""The loggers of all packages of the product, in one tree, so that one handler hears all of them."""

import logging


def logger(module: str) -> logging.Logger:
    """The logger of a module, below ``detprune`` also where the module is an adapter's.

    Args:
        module: its ``__name__``; ``detprune_lanes.task`` logs as ``detprune.lanes.task``.
    """
    package, dot, rest = module.partition(".")
    return logging.getLogger(package.replace("_", ".", 1) + dot + rest)
