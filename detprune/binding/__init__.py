"""The binding of a pruner to a training loop: hooks on the optimizer's steps, and checks that the steps are seen."""
