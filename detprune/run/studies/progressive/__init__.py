"""Progressive pruning: the target rises in steps, each from the best networks that there are."""

from detprune.run.studies.progressive.progressive_runs import run_progressive

__all__ = ["run_progressive"]
