"""Pictures for the page, which a task wrote into the run directory."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from detprune.errors import InputError
from detprune.files import read_json
from detprune.files.atomic import atomic

PICTURES = "pictures/pictures.json"

_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    title: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture ready for the page; `kind` is its media type, `image` its bytes in base64."""

    title: str
    caption: str
    kind: str
    image: str


def write_pictures(pictures: Sequence[Mapping[str, str]], folder: Path) -> Path:
    """Write the list of a run's pictures into its folder ``pictures``, for the report; return the list's path.

    Each has ``file`` (its bare name), ``title`` and ``caption``.
    """
    file = folder / Path(PICTURES).name
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(pictures, indent=2) + "\n", encoding="utf-8")
    return file


def read_pictures(run_dir: Path) -> tuple[list[Picture], list[str]]:
    """Return the pictures that `pictures/pictures.json` lists, and the names of missing files.

    Both are empty for a run without that list. Raises `InputError` where it is no list of objects
    with `file`, `title` and `caption`, or names anything but a PNG or JPEG file beside itself.
    """
    listing = run_dir / PICTURES
    if not listing.exists():
        return [], []
    content = read_json(listing, "move it away to report without pictures", list)
    try:
        entries = TypeAdapter(list[_Entry]).validate_python(content)
    except (ValueError, ValidationError) as error:
        reason = f"{error.errors()[0]['msg']}" if isinstance(error, ValidationError) else f"{error}"
        raise InputError(
            f"{str(listing)!r} is not a list of objects with file, title and caption ({reason}); "
            "write it again, or move it away to report without pictures"
        ) from error
    pictures: list[Picture] = []
    missing: list[str] = []
    for entry in entries:
        # The page is passed on, so no file from another folder may get into it unnoticed.
        if Path(entry.file).name != entry.file or Path(entry.file).suffix.lower() not in _KINDS:
            raise InputError(
                f"{str(listing)!r} names {entry.file!r}; a picture is a {', '.join(_KINDS)} file "
                "in the same folder, given by its bare name"
            )
        file = listing.parent / entry.file
        if not file.is_file():
            missing.append(entry.file)
            continue
        image = base64.b64encode(file.read_bytes()).decode()
        kind = _KINDS[file.suffix.lower()]
        pictures.append(Picture(entry.title, entry.caption, kind, image))
    return pictures, missing
