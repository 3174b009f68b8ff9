"""The report of a finished run: figures and one self-contained HTML page.

This subpackage imports matplotlib and reads files only; ``import detprune`` does not need it.
"""

from detprune.run.report.page import write_report

__all__ = ["write_report"]
