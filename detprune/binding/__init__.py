"""Binds a pruner to training that it does not own: hooks on the optimizer's steps, and checks that they are seen."""
