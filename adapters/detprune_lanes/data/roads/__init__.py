"""Synthetic road images with random or real lanes, in TuSimple's format."""
