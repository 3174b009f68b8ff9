"""Puts what builds the documentation on the path, and gives Ultralytics a private folder for its settings."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT / "docs" / "_ext"), str(_ROOT / "tools")]

if "YOLO_CONFIG_DIR" not in os.environ:  # before anything imports Ultralytics
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="detprune-docs-tests-")
    atexit.register(shutil.rmtree, os.environ["YOLO_CONFIG_DIR"], ignore_errors=True)
