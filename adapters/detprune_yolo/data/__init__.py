"""Detection data: what can be wrong with it, and a set that is drawn."""
