"""The ``detprune`` command."""
