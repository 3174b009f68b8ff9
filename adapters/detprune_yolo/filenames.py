"""Names of weight files under which Ultralytics opens the very file, and no other."""

from pathlib import Path

from ultralytics.utils.checks import check_yolov5u_filename
from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES

from detprune.errors import InputError


def check_output_name(path: Path) -> None:
    """Refuse names of weight files under which Ultralytics would not open the very file.

    It renames some local files (``yolov3-tiny.pt`` → ``yolov3-tinyu.pt``, unless there is a "u" anywhere
    in the path), drops apostrophes, and takes the names of its published weights for downloads.

    Raises:
        InputError: such a name, or another suffix than ``.pt``.
    """
    if path.suffix != ".pt":
        raise InputError(f"{path}: Ultralytics loads weights from .pt files only; name it *.pt")
    if (opened := opened_instead(path)) is not None:
        raise InputError(
            f"{path} is no usable name for weights: Ultralytics would look for {opened} instead, also "
            "on the network; choose another name, such as pruned.pt, in a folder without apostrophes"
        )
    if path.name in GITHUB_ASSETS_NAMES:
        raise InputError(
            f"{path.name} is the name of weights that Ultralytics publishes and downloads, so that "
            "one would be taken for the other; choose another name, such as pruned.pt"
        )


def opened_instead(path: Path) -> str | None:
    """The path that Ultralytics would open in place of this one, in any way of writing it; or None."""
    for written in (path.name, str(path), str(path.absolute())):
        opened = check_yolov5u_filename(written.strip().replace("'", ""), verbose=False)
        if opened != written:
            return opened
    return None
