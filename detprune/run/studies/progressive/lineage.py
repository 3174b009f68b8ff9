"""Who was pruned from whom."""

from dataclasses import dataclass
from typing import Any

from detprune.run.records import Summary
from detprune.run.studies.planned import PlannedRun
from detprune.run.studies.spec import rate_name


@dataclass(frozen=True)
class Network:
    """A network of the lineage.

    Attributes:
        run: what makes it.
        rate: its compression rate; 1 for the dense one.
        parent: what it was pruned from; None for the dense one.
    """

    run: PlannedRun
    rate: float
    parent: "Network | None" = None

    @property
    def label(self) -> str:
        """Its rate; of every rate only the best network has children."""
        return f"{rate_name(self.rate)}x" if self.parent else "dense"

    @property
    def summary(self) -> Summary:
        """What its run found; only for a finished one."""
        summary = self.run.summary
        if summary is None:
            raise ValueError(f"{self.run.folder.name} is not finished")
        return summary

    @property
    def final(self) -> float:
        """The metric after masked retraining; of the dense one, before anything was pruned."""
        value = self.summary.final if self.parent else self.summary.dense
        if value is None:
            raise ValueError(f"{self.run.folder.name} was not measured")
        return value

    @property
    def numbers(self) -> dict[str, Any]:
        """Its metrics, rate and epochs; the dense network's own run ends in a one-shot pruning of no interest."""
        keys = ("hard_pruned", "final", "compression", "epochs")
        of_dense = (
            {} if self.parent else {"hard_pruned": None, "final": self.final, "compression": 1.0}
        )
        return {**{key: getattr(self.summary, key) for key in keys}, **of_dense}

    @property
    def line(self) -> list["Network"]:
        """The network, its parent, and so on to the dense one."""
        return [self, *(self.parent.line if self.parent else [])]
