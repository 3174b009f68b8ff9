"""Files that appear whole: written under a temporary name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detprune.files.contents import check_replaceable
from detprune.files.temporaries import temporary_name


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that replaces it when the block ends without an error.

    Raises:
        InputError: a folder, a device or a pipe is there, which would be replaced (by root even ``/dev/null``).
    """
    check_replaceable(path)
    temporary = temporary_name(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
