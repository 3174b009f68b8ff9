"""Data sets for classification, by name."""

from .base import ImageData
from .registry import DATA_SETS, DataSpec, build_data, list_data

__all__ = ["DATA_SETS", "DataSpec", "ImageData", "build_data", "list_data"]
