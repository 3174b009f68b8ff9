"""Studies: methods × rates × models × seeds over any adapter, under equal epochs."""

from detprune.run.studies.study.study_runs import run_study

__all__ = ["run_study"]
