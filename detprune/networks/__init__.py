"""Checks and facts of a user's network and optimizer: wrappers, parametrizations, batch norm, non-finite values."""
