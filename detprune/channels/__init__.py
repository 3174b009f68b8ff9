"""Whole channels: how a network couples them, which go for a budget, and how they are taken out."""

from detprune.channels.bound import BoundChannels
from detprune.channels.coupled import CoupledChannels
from detprune.channels.plan import ChannelPlan, LayerPlan
from detprune.channels.tracing import Forward

__all__ = ["BoundChannels", "ChannelPlan", "CoupledChannels", "Forward", "LayerPlan"]
