"""The package from outside: what importing it costs, and what it exports."""

import subprocess
import sys
from pathlib import Path

import pytest

import detprune
import detprune.methods
import detprune.projections
import detprune.sets
from detprune.errors import DetpruneError, InputError, NonFiniteError, nearest

ROOT = Path(__file__).parents[2]

IMPORT = """
import sys, torch
import detprune
for name in set(detprune.__all__) - {"load"}:
    getattr(detprune, name)
heavy = {"pydantic", "typer", "rich", "jinja2", "yaml", "matplotlib", "sklearn"}
heavy |= {"lightning", "pytorch_lightning", "ultralytics", "torchvision"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
print(torch.cuda.is_initialized())
"""


def test_import_loads_no_framework_and_starts_no_cuda() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize(
    "module",
    [detprune, detprune.methods, detprune.sets, detprune.projections],
    ids=lambda module: module.__name__,
)
def test_every_exported_name_exists_and_is_documented(module: object) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    for name in names:
        value = getattr(module, name)
        if callable(value):
            # its own: neither inherited, nor the signature that a dataclass makes up
            docstring = value.__doc__ or ""
            assert docstring.strip(), f"{name} has no docstring"
            assert not docstring.startswith(f"{name}("), f"{name} has no docstring"
            assert all(docstring != base.__doc__ for base in getattr(value, "__mro__", ())[1:])


def test_errors_can_be_caught_by_their_builtin_kind() -> None:
    assert issubclass(InputError, DetpruneError)
    assert issubclass(InputError, ValueError)
    assert issubclass(NonFiniteError, DetpruneError)
    assert issubclass(NonFiniteError, ArithmeticError)


def test_nearest_names_only_what_is_near() -> None:
    assert nearest("unstructred", ["unstructured", "filter"]) == " (did you mean 'unstructured'?)"
    assert nearest("xyz", ["unstructured", "filter"]) == ""


def test_what_imports_ultralytics_is_under_its_licence() -> None:
    for folder in ("detprune", "adapters"):
        for file in (ROOT / folder).rglob("*.py"):
            first, *lines = file.read_text(encoding="utf-8").splitlines() or [""]
            agpl = first == "# SPDX-License-Identifier: AGPL-3.0-or-later"
            assert agpl == ("detprune_yolo" in file.parts), file
            imports = any(
                line.split()[1:2] == ["ultralytics"] for line in lines if "import" in line
            )
            assert agpl or not imports, file
