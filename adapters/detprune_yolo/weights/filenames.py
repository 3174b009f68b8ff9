# SPDX-License-Identifier: AGPL-3.0-or-later
"""Names of weight files that make Ultralytics open this file and no other."""

from pathlib import Path

from ultralytics.utils.checks import check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from detprune.errors import InputError
from detprune.files.contents import check_utf8_path


def check_output_name(path: Path) -> None:
    """Refuse names of weight files for which Ultralytics would open another file.

    It renames some local files (``yolov3-tiny.pt`` → ``yolov3-tinyu.pt``, unless there is a "u" anywhere
    in the path), drops apostrophes, and takes the names of its published weights for downloads.

    Raises:
        InputError: such a name, another suffix than ``.pt``, or a path that is not UTF-8.
    """
    check_utf8_path(path.absolute())
    if path.suffix != ".pt":
        raise InputError(f"{path}: Ultralytics loads weights from .pt files only; name it *.pt")
    for written in (path.name, str(path), str(path.absolute())):
        if (opened := opened_instead(written)) is not None:
            raise InputError(
                f"{path} is no usable name for weights: given {written}, Ultralytics would look for "
                f"{opened}, also on the network; choose another name, such as pruned.pt, in a folder "
                "without apostrophes"
            )
    if path.name in GITHUB_ASSETS_NAMES:
        raise InputError(
            f"{path.name} is the name of weights that Ultralytics publishes and downloads, so that "
            "one would be taken for the other; choose another name, such as pruned.pt"
        )


def opened_instead(written: str) -> str | None:
    """The name that Ultralytics would open in place of a path written like this; None if it opens the path."""
    opened = check_yolov5u_filename(written.strip().replace("'", ""), verbose=False)
    return None if opened == written else opened
