"""A private configuration and cache folder, set before anything imports Ultralytics."""

import atexit
import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDER = tempfile.mkdtemp(prefix="detprune-tests-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
os.environ["YOLO_CONFIG_DIR"] = os.path.join(_FOLDER, "config")
os.environ["XDG_CACHE_HOME"] = os.path.join(_FOLDER, "cache")

import pytest  # noqa: E402
import yaml  # noqa: E402
from detection_recipe import TINY  # noqa: E402


@pytest.fixture
def tiny_detector() -> dict[str, Any]:
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def recipe_file() -> Callable[[Path, dict[str, Any]], Path]:
    def write(folder: Path, recipe: dict[str, Any]) -> Path:
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        return path

    return write
