"""``python -m detprune``."""

from detprune.cli import main

main()
