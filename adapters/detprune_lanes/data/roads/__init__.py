"""Roads that the project draws itself, around random or real lanes, in TuSimple's format."""
