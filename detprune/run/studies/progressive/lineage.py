"""The lineage of progressive pruning: which network was pruned from which."""

from dataclasses import dataclass
from typing import Any

from detprune.run.records import Summary
from detprune.run.studies.planned import PlannedRun
from detprune.run.studies.spec import rate_name


@dataclass(frozen=True)
class Network:
    """A network of the lineage.

    Attributes:
        run: the run that trains it.
        rate: its compression rate; 1 for the dense one.
        parent: the network that it was pruned from; None for the dense network.
    """

    run: PlannedRun
    rate: float
    parent: "Network | None" = None

    @property
    def label(self) -> str:
        """Label of the network, its rate; it is unique, because only the best network of a rate has children."""
        return f"{rate_name(self.rate)}x" if self.parent else "dense"

    @property
    def summary(self) -> Summary:
        """The summary of the network's run, which must be finished."""
        summary = self.run.summary
        if summary is None:
            raise ValueError(f"{self.run.folder.name} is not finished")
        return summary

    @property
    def final(self) -> float:
        """The metric after masked retraining; for the dense network, its metric before pruning."""
        value = self.summary.final if self.parent else self.summary.dense
        if value is None:
            raise ValueError(f"{self.run.folder.name} was not measured")
        return value

    @property
    def numbers(self) -> dict[str, Any]:
        """Metrics, rate and epochs; the one-shot pruning at the end of the dense network's run is left out."""
        keys = ("hard_pruned", "final", "compression", "epochs")
        of_dense = (
            {} if self.parent else {"hard_pruned": None, "final": self.final, "compression": 1.0}
        )
        return {**{key: getattr(self.summary, key) for key in keys}, **of_dense}

    @property
    def line(self) -> list["Network"]:
        """The network, its parent, and so on to the dense one."""
        return [self, *(self.parent.line if self.parent else [])]
