"""Data sets for classification, by name."""

from .base import ImageData
from .facts import images_facts
from .registry import DATA_SETS, build_data

__all__ = ["DATA_SETS", "ImageData", "build_data", "images_facts"]
