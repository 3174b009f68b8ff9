"""Recipes: one typed YAML file that says everything about a run.

The core knows what every task has; an adapter's recipe adds its model, data and training. Unknown
keys are refused at every level, with their path and the nearest valid key.
"""

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from detprune.errors import InputError
from detprune.networks.batch_norm import BATCH_NORM_IMAGES
from detprune.run.recipe.components import BudgetField, MethodField, SetField
from detprune.run.recipe.settings import Settings, options_for
from detprune.sets import Unstructured
from detprune.values import RANGE, is_in_range


def _leaves(annotation: Any) -> set[Any]:
    """The types that an annotation consists of."""
    inner = get_args(annotation)
    return set().union(*map(_leaves, inner)) if inner else {annotation}


def _check_numbers(annotation: Any, value: Any, place: str = "") -> None:
    """Refuse what cannot be a number where one belongs, also in the mapping of a dataclass of an adapter."""
    kinds = _leaves(annotation)
    if {int, float} & kinds and not {bool, Any} & kinds:
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, bool):
                raise InputError(
                    f"{place}{str(item).lower()} is no number; YAML reads yes, no, on and off like that too"
                )
            if isinstance(item, int | float) and not is_in_range(item):
                raise InputError(f"{place}{str(item)[:40]} is out of range; allowed are {RANGE}")
    for kind in kinds:
        if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, Mapping):
            hints = get_type_hints(kind)
            for key in value.keys() & hints.keys():
                _check_numbers(hints[key], value[key], f"{key}: ")


class Section(BaseModel):
    """A mapping in a recipe; keys that it does not know are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number belongs, which pydantic reads as 1 and 0, and what torch cannot hold."""
        _check_numbers(cls.model_fields[str(info.field_name)].annotation, value)
        return value


def _is_no_step(name: str) -> str:
    if name.strip(".") == "":
        raise InputError(f"{name!r} names no folder of its own; give a name that is not dots alone")
    return name


FolderName = Annotated[str, StringConstraints(pattern=r"^[\w.+-]+$"), AfterValidator(_is_no_step)]
"""A name that is also used as a folder's: letters, digits, ``_ . + -``, and not dots alone."""


class Recipe(Section):
    """The keys that every recipe has.

    Attributes:
        task: name of the adapter that runs the recipe.
        name: name of the run, and of its directory below ``runs/``.
        seed: seed of initial weights, data order and augmentation.
        method: the pruning method, which moves the weights to the set.
        set: the sparsity set, the structure that the pruned weights must have.
        budget: how many weights are kept, and which tensors are pruned.
        batch_norm_images: number of training images from which the batch-norm statistics are estimated anew
            after hard pruning, before it is measured; no weight changes. Where there are fewer images, all are
            used. 0: the statistics stay as training left them.
        measure: whether sizes and latencies of the dense and the final network are measured at the end, which
            takes some ten seconds.
    """

    task: str
    name: FolderName
    seed: int = Field(default=0, ge=0, lt=2**32)
    method: MethodField
    set: SetField = Unstructured()
    budget: BudgetField
    batch_norm_images: int = Field(default=BATCH_NORM_IMAGES, ge=0)
    measure: bool = True

    @model_validator(mode="after")
    def _method_goes_with_set(self) -> Self:
        self.method.check_set(self.set)
        return self

    @property
    def has_weights(self) -> bool:
        """Whether the recipe names weights that the model starts with."""
        return False

    @property
    def pruning_epochs(self) -> int:
        """Epochs of constrained training and masked retraining together."""
        raise InputError(
            f"recipes of the task {self.task!r} do not say their epochs, so that a study cannot compare them"
        )

    def from_dense(self, run: Path) -> Settings:
        """The settings that make such a recipe start with the dense network of another run.

        Args:
            run: directory of that run.
        """
        return {"model.weights": str(run / "checkpoints" / "dense.pt"), "stages.dense": None}

    def require_weights(self, purpose: str) -> None:
        """Check that the model starts with weights of a dense network.

        Args:
            purpose: what they are needed for, as a relative clause.

        Raises:
            InputError: it does not; the message has the options that name those of a run.
        """
        if not self.has_weights:
            raise InputError(
                f"the recipe names no weights of a dense network, {purpose}; those of a run whose dense stage is "
                f"done, say runs/x, are named with {options_for(self.from_dense(Path('runs/x')))}"
            )

    def from_pruned(self, run: Path) -> Settings:
        """The settings that make such a recipe start with the pruned network of another run.

        Args:
            run: directory of that run.
        """
        return {"model.weights": str(run / "checkpoints" / "final.pt"), "stages.dense": None}

    @staticmethod
    def dense_part(values: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of such a recipe that its dense network depends on: all but those for pruning and later stages.

        Args:
            values: the recipe as a mapping.
        """
        later = ("name", "method", "set", "budget", "batch_norm_images", "distillation", "stages")
        kept = {key: value for key, value in values.items() if key not in later}
        return {**kept, "dense": values["stages"]["dense"]}

    def taught_by_dense(self, run: Path) -> Settings:
        """The settings that make the dense network of another run the teacher.

        Empty without distillation, and where the recipe names a teacher itself.

        Args:
            run: directory of that run.
        """
        return {}
