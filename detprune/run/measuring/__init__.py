"""Measurement of the gain of pruning: parameters, operations, bytes and milliseconds, dense against pruned."""

from detprune.run.measuring.deployment import Deployed, deployed
from detprune.run.measuring.measurement import Latency, Measurement, Size, measure_networks

__all__ = ["Deployed", "Latency", "Measurement", "Size", "deployed", "measure_networks"]
