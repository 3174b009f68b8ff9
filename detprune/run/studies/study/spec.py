"""The file of a study: one recipe, and the grid of its variations."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from detprune.errors import InputError, listed
from detprune.run.recipe import FolderName, Section, Settings
from detprune.run.studies.spec import RunsSpec, SettingsField, rate_name

Rates = tuple[Annotated[float, Field(gt=0)], ...]
Target = Literal["compression", "macs", "parameters", "latency"]


class Published(Section):
    """Published numbers, shown beside the results.

    Attributes:
        source: the paper and table, and the data on which the numbers were measured.
        values: method → rate → (after hard pruning, final), in the unit of the table; null for a missing number.
    """

    source: str
    values: dict[FolderName, dict[float, tuple[float | None, float | None]]]


class Study(RunsSpec):
    """A grid of runs: methods × rates × models × seeds.

    Attributes:
        methods: label → changes of the recipe for the method; ``method`` at least.
        target: meaning of the rates: compression rates, or, where whole channels are removed, the shares of MACs,
            parameters or latency that are left; ``budget.target`` in ``settings`` names the device of a latency.
        rates: the rates: 1 or more for compression, else above 0 and below 1.
        own_rates: label of a model → its own rates, in place of ``rates``.
        models: label → changes of the recipe for the model; by default, one model without a label.
        seeds: seeds of the runs; each seed trains a dense network, from which all its runs start.
        published: published numbers, shown beside the results.
    """

    methods: dict[FolderName, SettingsField] = Field(min_length=1)
    target: Target = "compression"
    rates: Rates = ()
    own_rates: dict[FolderName, Rates] = Field(default_factory=dict)
    models: dict[FolderName, SettingsField] = Field(default_factory=dict)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(0,), min_length=1)
    published: Published | None = None

    @model_validator(mode="after")
    def _methods_have_one(self) -> Self:
        for label, settings in self.methods.items():
            if not any(key == "method" or key.startswith("method.") for key in settings):
                raise InputError(f"methods.{label} sets no method; write {label}: {{method: slr}}")
        return self

    @model_validator(mode="after")
    def _every_model_has_rates(self) -> Self:
        if strangers := sorted(set(self.own_rates) - set(self.models)):
            raise InputError(
                f"own_rates are given for {listed(strangers)}, but the models are: {listed(self.models)}"
            )
        for rate in [rate for label in self.labels for rate in self.rates_of(label)]:
            if (rate < 1) == (self.target == "compression"):
                allowed = "1 or more" if self.target == "compression" else "above 0 and below 1"
                raise InputError(f"rates: {rate:g} is no {self.target}, allowed is {allowed}")
        if without := [label for label in self.labels if not self.rates_of(label)]:
            of_model = f" for {listed(without)}" if self.models else ""
            raise InputError(f"there is no rate{of_model}; write rates: [2, 4]")
        return self

    @model_validator(mode="after")
    def _every_run_has_a_folder(self) -> Self:
        # names may join to the same folder (a_b + c, a + b_c); some file systems ignore case
        runs: list[Baseline | Cell] = [*self.baselines, *self.cells]
        folders = Counter(run.folder.casefold() for run in runs)
        if twice := sorted(name for name, count in folders.items() if count > 1):
            raise InputError(
                f"several runs would have the same folder: {listed(twice)}; give every rate and seed once, and "
                "methods and models different labels"
            )
        return self

    def rates_of(self, model: str) -> tuple[float, ...]:
        """The rates of a model."""
        return self.own_rates.get(model, self.rates)

    @property
    def labels(self) -> list[str]:
        """Labels of the models; one empty label if no model is named."""
        return list(self.models) or [""]

    @property
    def baselines(self) -> list["Baseline"]:
        """All dense networks."""
        return [Baseline(model, seed) for model in self.labels for seed in self.seeds]

    @property
    def cells(self) -> list["Cell"]:
        """All pruned runs, seed by seed, so that a study that is cut off has complete seeds."""
        return [
            Cell(Baseline(model, seed), method, rate, self.target)
            for seed in self.seeds
            for model in self.labels
            for rate in self.rates_of(model)
            for method in self.methods
        ]

    def label_of(self, rate: float) -> str:
        """The text of a rate in tables and figures."""
        if self.target == "compression":
            return f"{rate_name(rate)}×"
        return f"{rate_name(rate)} of the {'MACs' if self.target == 'macs' else self.target}"

    def sorted_rates(self, model: str) -> list[float]:
        """The rates of a model, starting with the one that prunes least."""
        return sorted(self.rates_of(model), reverse=self.target != "compression")

    def settings_of(self, baseline: "Baseline") -> list[Settings]:
        """The settings of model and seed for a dense network, without those that stop the run after the dense stage."""
        return [self.settings, self.models.get(baseline.model, {}), {"seed": baseline.seed}]


@dataclass(frozen=True)
class Baseline:
    """The dense network of a model and a seed."""

    model: str
    seed: int

    @property
    def folder(self) -> str:
        """Name of its run directory."""
        return "_".join(part for part in (self.model, f"dense_{self.seed}") if part)


@dataclass(frozen=True)
class Cell:
    """One pruned run: a method at a rate, from a dense network."""

    baseline: Baseline
    method: str
    rate: float
    target: Target = "compression"

    @property
    def folder(self) -> str:
        """Name of its run directory."""
        name = rate_name(self.rate)
        rate = f"{name}x" if self.target == "compression" else f"{name}_{self.target}"
        parts = (self.baseline.model, self.method, rate, str(self.baseline.seed))
        return "_".join(part for part in parts if part)
