"""TuSimple's files, the targets that a network learns from, and drawn roads."""
