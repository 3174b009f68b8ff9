"""``python -m detprune``."""

from detprune.run.cli.main import main

main()
