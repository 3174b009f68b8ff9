"""Progressive pruning: the target rises in steps, and each step starts from the best networks so far."""

from detprune.run.studies.progressive.progressive_runs import run_progressive

__all__ = ["run_progressive"]
