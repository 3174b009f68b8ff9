"""Metrics: name, unit, and whether higher or lower is better."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One of the numbers that ``evaluate`` returns.

    Attributes:
        name: name in files and reports.
        per_cent: whether it is a share from 0 to 1 that people read in per cent.
        higher_is_better: whether the higher of two values is the better one.
    """

    name: str
    per_cent: bool = True
    higher_is_better: bool = True

    @classmethod
    def of_name(cls, name: str) -> "Metric":
        """The metric of a name saved by an earlier version, which stored no unit and no direction."""
        lower = name.lower()
        return cls(name, per_cent="accuracy" in lower or lower.startswith("map"))

    @property
    def scale(self) -> float:
        """Factor from the stored number to the number that is shown."""
        return 100.0 if self.per_cent else 1.0

    @property
    def label(self) -> str:
        """Name and unit, for axes and headers."""
        return f"{self.name} (%)" if self.per_cent else self.name

    @property
    def header(self) -> str:
        """Name and, where that is not the usual one, direction, for the headers of tables."""
        return self.name if self.higher_is_better else f"{self.name} (lower is better)"

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{100 * value:.2f} %" if self.per_cent else f"{value:.4f}"

    def difference(self, value: float, base: float) -> str:
        """Signed difference of two values as text; in points if the metric is in per cent."""
        change = self.scale * (value - base)
        text = f"{change:+.2f}" if self.per_cent else f"{change:+.4f}"
        return text if text.strip("+-0.") else text[1:]  # no sign on what rounds to zero
