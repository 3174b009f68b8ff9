"""Ultralytics' trainer, resumed exactly and with a pruner bound to it."""
