"""Files of text where weights are expected: a link may lead to one, whose lines are not for messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detprune import InputError
from detprune.files import load_tensors, safe_load


@pytest.mark.parametrize("read", [safe_load, load_tensors])
@pytest.mark.parametrize(
    "text",
    [
        "client_secret=hunter2\nkey=hunter2\nthird\n",  # a pickle's call is "c", a line, and a line
        "credential\nhunter2\nthird\n",
        "SECRET=hunter2\n",
        "ID=hunter2\n",
    ],
)
def test_no_line_of_a_text_is_quoted(
    tmp_path: Path, read: Callable[[Path, str], Any], text: str
) -> None:
    (tmp_path / "secrets").write_text(text)
    (tmp_path / "net.pt").symlink_to(tmp_path / "secrets")
    with pytest.raises(InputError, match=r"net\.pt cannot be") as caught:
        read(tmp_path / "net.pt", "give a checkpoint")
    assert "hunter2" not in str(caught.value)
