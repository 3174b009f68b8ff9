"""TuSimple's metric."""
