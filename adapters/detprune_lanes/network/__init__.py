"""The network, its checkpoints and its export."""
