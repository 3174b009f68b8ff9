"""The assertion that all contract checks use."""


def require(holds: bool, otherwise: str) -> None:
    """Raise an `AssertionError` with the text ``otherwise`` unless ``holds``; ``python -O`` does not remove it."""
    if not holds:
        raise AssertionError(otherwise)
