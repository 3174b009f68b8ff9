"""The types of ``summary.json`` and ``progress.json``: the settings and results of a run, and of each stage.

The files are written and read only through these types. A later version may write more keys than this one reads.
"""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from detprune.run.measurements import Measurement
from detprune.run.metrics import Metric

SUMMARY = "summary.json"

Stage = Literal["dense", "hard_pruned", "removed", "final"]
"""Name of a stage, after which a run measures its network: trained, hard-pruned, without zero channels, retrained."""


class Record(BaseModel):
    """Base of all records; no protected namespaces, because ``model_compression`` is a plain field here."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class StageResult(Record):
    """The result of a finished stage, as ``progress.json`` stores it.

    Attributes:
        metric: the headline metric.
        metrics: all metrics, by name.
        seconds: duration of the stage.
        difference: relative difference of the outputs with and without zero channels, if channels were removed.
        batch_norm_images: number of images from which batch-norm statistics were estimated anew; None: not known.
    """

    metric: float
    metrics: dict[str, float]
    seconds: float
    difference: float | None = None
    batch_norm_images: int | None = None


class Layer(Record):
    """One weight tensor of the model."""

    name: str
    shape: tuple[int, ...]
    numel: int
    nonzero: int
    pruned: bool

    @property
    def kept(self) -> float:
        """Share of the weights that are not zero."""
        return self.nonzero / self.numel if self.numel else 1.0


class Verified(Record):
    """The result of reading the final file back and measuring it; by its digest the file is known later."""

    path: str
    nonzero: int | None
    metric: float | None
    sha256: str | None = None


class Size(Record):
    """Cost of a network: multiply-accumulate operations for one input, and parameters."""

    macs: float
    parameters: float


class Removal(Record):
    """Sizes of a network before and after channels were removed, and the relative difference of the outputs."""

    dense: Size
    small: Size
    difference: float


class LatencyResult(Record):
    """Shares of the dense network's time under a latency budget.

    Attributes:
        target: where the time counts.
        asked: the budget.
        predicted: by the times of single layers.
        before_training: measured of a network of the same widths, before it was trained.
        measured: of the final network, as median of pairs in turn; None if the target is not here.
        dense_ms, pruned_ms: milliseconds of both networks.
    """

    target: str
    asked: float
    predicted: float | None = None
    before_training: float | None = None
    measured: float | None = None
    dense_ms: float | None = None
    pruned_ms: float | None = None

    def __str__(self) -> str:
        parts = [f"asked for {self.asked:g}"]
        for value, what in (
            (self.predicted, "predicted"),
            (self.before_training, "measured before training"),
            (self.measured, "measured at the end"),
        ):
            if value is not None:
                parts.append(f"{value:.3f} {what}")
        if self.measured is None:
            parts.append("not measured, because the target is not here")
        return f"share of the dense network's time on {self.target}: {', '.join(parts)}"


class Summary(Record):
    """The content of ``summary.json``. A number that was not measured is null; only keys with a default may lack."""

    task: str
    name: str | None = None
    model: str
    data: str
    method: str
    sparsity_set: str = Field(
        validation_alias=AliasChoices("set", "sparsity_set"), serialization_alias="set"
    )
    metric: str
    units: tuple[Metric, ...] = ()
    dense: float | None
    hard_pruned: float | None
    removed: float | None = None
    final: float | None
    metrics: dict[Stage, dict[str, float | None]] | None = None
    notes: tuple[str, ...] = ()
    compression: float
    sparsity: float
    model_compression: float
    model_sparsity: float
    layers: tuple[Layer, ...]
    epochs: dict[str, int | None]
    seconds: dict[str, float | None]
    seed: int | None
    versions: dict[str, str]
    command: str | None
    removal: Removal | None = None
    latency: LatencyResult | None = None
    verified: Verified | None
    measured: Measurement | None = None

    @property
    def headline(self) -> Metric:
        """The metric of the headline."""
        return self.unit(self.metric)

    def unit(self, name: str) -> Metric:
        """Unit and direction of a metric."""
        return next((m for m in self.units if m.name == name), Metric.of_name(name))

    def at(self, stage: Stage) -> float | None:
        """The headline metric after a stage."""
        value: float | None = getattr(self, stage)
        return value

    @property
    def pruning_epochs(self) -> int:
        """Epochs of constrained training and retraining together."""
        return (self.epochs["constrained"] or 0) + (self.epochs["retrain"] or 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the file, without keys that do not apply to the run."""
        dumped = self.model_dump(mode="json", by_alias=True)
        optional = [n for n, f in type(self).model_fields.items() if not f.is_required()]
        return {k: v for k, v in dumped.items() if k not in optional or v not in (None, [])}
