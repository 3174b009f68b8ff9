"""Measurement of the gain of pruning: parameters, operations, bytes and milliseconds, dense against pruned."""

from detprune.run.measurements import Latency, Measurement, Size
from detprune.run.measuring.deployment import Deployed, deployed
from detprune.run.measuring.measurement import measure_networks

__all__ = ["Deployed", "Latency", "Measurement", "Size", "deployed", "measure_networks"]
