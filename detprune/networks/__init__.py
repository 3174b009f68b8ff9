"""Facts about a user's network and optimizer: wrappers, parametrizations, batch norm, values that are not finite."""
