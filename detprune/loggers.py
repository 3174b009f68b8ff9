"""The loggers of detprune and its adapters, in one tree, so that one handler gets all records."""

import logging


def logger(module: str) -> logging.Logger:
    """The logger of a module, below ``detprune`` even if the module is an adapter's.

    Args:
        module: its ``__name__``; ``detprune_lanes.task`` logs as ``detprune.lanes.task``.
    """
    package, dot, rest = module.partition(".")
    return logging.getLogger(package.replace("_", ".", 1) + dot + rest)
