# SPDX-License-Identifier: AGPL-3.0-or-later
"""The environment of Ultralytics, set before its import: no network, no package installation, safe loading.

Ultralytics reads these variables once, at import. Variables that the user has set stay as they are.
"""

import os
import shutil
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import wrapt

from detprune.files.atomic import atomic
from detprune.files.folders import user_cache

UNSAFE_LOAD = "DETPRUNE_UNSAFE_LOAD"
"""Variable that, if set to 1 before the start, lets checkpoints run the code that they carry when they are loaded."""

_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
_OURS = {
    **dict.fromkeys(
        ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb"), False
    ),
    # below the working directory; Ultralytics' default stays below the repository of its first use for ever
    "runs_dir": "runs",
    "datasets_dir": "datasets",
    "weights_dir": "weights",
}

_own_folder = False


def prepare() -> Path:
    """Set Ultralytics' environment variables and fill its configuration folder; return that folder.

    A font under the name that Ultralytics looks for keeps it from fetching one, and settings of our
    own keep installed loggers from attaching themselves.
    """
    global _own_folder
    _own_folder = "YOLO_CONFIG_DIR" not in os.environ
    defaults = {
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "0",
        "YOLO_CONFIG_DIR": str(_cache()),
        "ULTRALYTICS_SAFE_LOAD": "0" if os.environ.get(UNSAFE_LOAD) == "1" else "1",
    }
    late = [name for name in defaults if name not in os.environ]
    if late and "ultralytics" in sys.modules:
        warnings.warn(
            "ultralytics was imported before detprune_yolo, so that it may use the network, install "
            f"packages and run code from checkpoints; import detprune_yolo first, or set {late}",
            stacklevel=3,
        )
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    wrapt.register_post_import_hook(_settle, "ultralytics")  # at once, where it is imported already
    folder = Path(os.environ["YOLO_CONFIG_DIR"]).expanduser() / "Ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for font in _FONTS:
            if not (folder / font).exists():
                from matplotlib import get_data_path  # slow to import, and needed once

                with atomic(folder / font) as temporary:
                    shutil.copyfile(
                        Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", temporary
                    )
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be written ({error.strerror}), but Ultralytics needs a font in it; "
            "set YOLO_CONFIG_DIR to a folder of yours",
            stacklevel=3,
        )
    return folder


def _cache() -> Path:
    """A folder in the user's home; a private temporary one if the home cannot be written."""
    try:
        home = user_cache()
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="detprune-"))
    return home if os.access(home, os.W_OK) else Path(tempfile.mkdtemp(prefix="detprune-"))


def _settle(_: ModuleType) -> None:
    """Settings after the import of Ultralytics: no analytics, no attached loggers, no installer for images.

    The settings of a configuration folder that the user chose stay.
    """
    from ultralytics.utils import SETTINGS, patches

    if _own_folder and any(SETTINGS[name] != value for name, value in _OURS.items()):
        SETTINGS.update(_OURS)
    if find_spec("pi_heif") is None:
        # Ultralytics replaces PIL.Image.open for the whole process; without this line, a damaged image makes
        # it ask for a package
        patches._pil_plugins_registered = True
