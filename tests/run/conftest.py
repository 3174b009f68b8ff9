"""Fixtures around the tiny recipe."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_recipe import TINY


@pytest.fixture
def tiny() -> dict[str, Any]:
    return copy.deepcopy(TINY)


@pytest.fixture
def tiny_file(tmp_path: Path, tiny: dict[str, Any]) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny), encoding="utf-8")
    return path
