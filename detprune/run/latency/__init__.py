"""Latency budgets: the times of layers and of whole networks are measured, and widths chosen by them."""

from detprune.run.latency.choosing import measured_budget

__all__ = ["measured_budget"]
