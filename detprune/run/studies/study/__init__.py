"""Studies: methods × rates × models × seeds over any adapter, under equal epochs."""

from detprune.run.studies.study.runner import run_study

__all__ = ["run_study"]
