"""What the checks share."""


def require(holds: bool, otherwise: str) -> None:
    """Raise `AssertionError`, which ``python -O`` keeps, with what does not hold."""
    if not holds:
        raise AssertionError(otherwise)
