"""Loading of weights from files that a user names, without running any code in them."""

import zipfile
from pathlib import Path

from detprune.errors import InputError
from detprune.files.contents import named_path
from detprune.files.packed import is_plain_pickle, refuse_packed
from detprune.files.storage import memory_ended
from detprune.files.tensors import UNREADABLE, check_archive, code_that_would_run, unpickle_tensors

_TEXT = (b"<", b"version https://git-lfs")


def safe_load(path: str | Path, wanted: str) -> object:
    """The content of a file of ``torch.save``: tensors, on the CPU, and plain values.

    Args:
        path: the file.
        wanted: description of a usable file; messages put it after "give".

    Raises:
        InputError: the file is missing, a folder or damaged, or would run code when opened.
    """
    path = named_path(path, f"give {wanted}")
    try:
        is_folder = path.is_dir()
    except OSError as error:  # the name is too long, or a folder above it may not be entered
        raise InputError(f"cannot read {path}: {error.strerror or error}; give {wanted}") from error
    if is_folder:
        raise InputError(f"{path} is a folder; give {wanted}, which is a file")
    if not path.exists():
        raise InputError(f"there is no file {path}, and nothing is downloaded; give {wanted}")
    if not path.is_file():
        raise InputError(f"{path} is a device, pipe or socket and no file; give {wanted}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if head.lstrip().startswith(_TEXT):
        raise InputError(
            f"{path} is a text file: a web page or a Git LFS pointer that was saved in place of the "
            "weights; download the file itself"
        )
    refuse_packed(path)
    check_archive(path, f"copy or download it again, or give {wanted}")
    try:
        return unpickle_tensors(path)
    except UNREADABLE as error:
        if memory_ended(error) and zipfile.is_zipfile(path):
            raise  # its checksums are right
        # without torch's own text, which advises to switch the protection off
        code = code_that_would_run(path, error)
        if code is None and is_plain_pickle(head):
            raise InputError(
                f"{path} is a pickle that torch.save did not write (pickle.dump, joblib), and opening one may run "
                "code; where it was written, save the weights alone: torch.save(net.state_dict(), path)"
            ) from error
        raise _refused(path, wanted, code) from error


def _refused(path: Path, wanted: str, code: str | None) -> InputError:
    if code is None:
        return InputError(
            f"{path} cannot be opened: it is empty, damaged, of another format or holds more than "
            f"tensors and plain values; copy or download it again, or give {wanted}"
        )
    if code.startswith("ultralytics."):
        return InputError(
            f"{path} is an Ultralytics checkpoint ({code}), which recipes with task: yolo take; "
            f"give {wanted}"
        )
    return InputError(
        f"refused to open {path}: safe loading allows tensors and plain values, and this file would "
        f"run {code}; where it was written, save the weights alone: "
        "torch.save(net.state_dict(), path)"
    )
