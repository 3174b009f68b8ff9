"""Whole channels: how a network couples them, which ones a budget removes, and how they are removed."""

from detprune.channels.bound import BoundChannels
from detprune.channels.coupled import CoupledChannels
from detprune.channels.plan import ChannelPlan, LayerPlan
from detprune.channels.tracing import Forward

__all__ = ["BoundChannels", "ChannelPlan", "CoupledChannels", "Forward", "LayerPlan"]
