"""Networks in formats of other runtimes, checked against PyTorch before they are handed over."""
