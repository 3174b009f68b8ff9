"""Recipes: one typed YAML file that says everything about a run.

The core knows what every task has; an adapter's recipe adds its model, data and training. Unknown
keys are refused at every level, with their path and the nearest valid key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Self, TypeVar, cast, get_args, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from detprune.errors import InputError, nearest
from detprune.files import dump_yaml_text, load_yaml, parse_yaml
from detprune.networks.batch_norm import BATCH_NORM_IMAGES
from detprune.run.recipe.components import BudgetField, MethodField, SetField
from detprune.run.recipe.settings import Settings, assign, options_for, read_assignments
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


S = TypeVar("S", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe file safely.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    values = load_yaml(path)
    if not isinstance(values, dict):
        fault = "is empty" if values is None else "holds no mapping"
        raise InputError(
            f"{path} {fault}; a recipe consists of keys with values, as the files in configs/ do"
        )
    return values


def override(values: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments to a copy of a recipe's mapping; see ``assign``."""
    changed = dict(values)
    for settings in read_assignments(assignments):
        changed = assign(changed, settings)
    return changed


def validate(kind: type[S], values: Mapping[str, Any], what: str = "the recipe") -> S:
    """Turn a mapping into a typed recipe, or into another section.

    Raises:
        InputError: all that is wrong, one line each: path, problem, value, nearest valid key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_describe(kind, dict(problem)) for problem in error.errors()]
        raise InputError(f"{what} is not valid:\n  " + "\n  ".join(lines)) from error


def dump_yaml(recipe: Recipe) -> str:
    """The resolved recipe, every default spelled out; reading it back gives an equal recipe."""
    return dump_yaml_text(recipe.model_dump(mode="json"))


def is_same(stored: Any, recipe: Recipe) -> bool:
    """Whether a stored recipe, as read from YAML, equals this one.

    Keys that the stored recipe lacks count with their defaults: an earlier version of detprune did not know them.
    """
    return bool(spelled_out(stored, type(recipe)) == _plain(recipe))


def spelled_out(stored: Any, kind: type[Recipe]) -> Any:
    """A stored recipe with the defaults of the keys that it lacks; unchanged where it is no recipe of that kind."""
    try:
        return _plain(validate(kind, stored))
    except InputError:
        return stored


def _plain(recipe: Recipe) -> Any:
    return parse_yaml(dump_yaml(recipe), "the recipe")


def _describe(recipe_type: type[BaseModel], problem: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys_at(recipe_type, problem["loc"][:-1])
        key = str(problem["loc"][-1])
        return f"unknown key {path}{nearest(key, known)}; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"{path} is missing"
    if problem["type"] in ("model_type", "dataclass_type", "dict_type") and (
        known := _keys_at(recipe_type, problem["loc"])
    ):
        left_out = problem["input"] is False and _may_be_left_out(recipe_type, problem["loc"])
        return (
            f"{path} is {problem['input']!r}, but must be a mapping with keys: {', '.join(known)}"
            + ("; null leaves it out" if left_out else "")
        )
    if problem["type"] in ("tuple_type", "list_type"):
        single = isinstance(problem["input"], str | int | float)
        example = f", as in [{problem['input']}]" if single else ""
        return f"{path} is {problem['input']!r}, but must be a list{example}"
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        return (
            f"{path}: {cause}"
            if not str(cause).startswith((path, f"unknown key {path}"))
            else str(cause)
        )
    message = f"{path}: {problem['msg']}, got {problem['input']!r}"
    if problem["type"] in ("string_type", "path_type") and isinstance(
        problem["input"], int | float
    ):
        return f"{message}; a text that YAML takes for another value stands in quotes, as in '1.10' or 'on'"
    return message


def _may_be_left_out(section: type, loc: tuple[Any, ...]) -> bool:
    """Whether null may stand in the place to which a path leads."""
    annotation: Any = section
    for part in loc:
        kinds = [k for k in (annotation, *get_args(annotation)) if hasattr(k, "model_fields")]
        if kinds and part in kinds[0].model_fields:
            annotation = kinds[0].model_fields[part].annotation
    return NoneType in get_args(annotation)


def _keys_at(section: type, loc: tuple[Any, ...]) -> list[str]:
    """Keys of the section, or of the dataclass in its place, to which a path leads."""
    for part in loc:
        if not issubclass(section, BaseModel) or str(part) not in section.model_fields:
            continue
        annotation = section.model_fields[str(part)].annotation
        candidates = [c for c in (annotation, *get_args(annotation)) if isinstance(c, type)]
        inner = [c for c in candidates if issubclass(c, BaseModel) or is_dataclass(c)]
        if not inner:
            return []
        section = inner[0]
    if issubclass(section, BaseModel):
        return list(section.model_fields)
    return [field.name for field in fields(cast("Any", section))]
