"""Folders that the project fills: places where none can be are refused, and what fails leaves nothing behind."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from detprune.errors import DetpruneError, InputError
from detprune.files.contents import check_utf8_path
from detprune.files.folders import SET, complete_folder, output_folder, user_cache
from detprune.files.storage import plain_refusals
from detprune.run.claim import absolute, located


def below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("", encoding="utf-8")
    return folder / "file" / "set"


def link_to_itself(folder: Path) -> Path:
    (folder / "link").symlink_to("link")
    return folder / "link"


@pytest.mark.parametrize(
    "place",
    [
        below_a_file,
        link_to_itself,
        lambda folder: folder / ("x" * 300),
        lambda folder: folder / ("x/" * 2100),
        lambda folder: Path("/proc/set"),
    ],
    ids=["below a file", "link to itself", "long name", "long path", "proc"],
)
def test_a_place_where_no_folder_can_be(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    def write(new: Path) -> None:
        new.mkdir()

    with pytest.raises(InputError, match=r"cannot write into .*name another folder"):
        complete_folder(output_folder(place(tmp_path)), lambda: False, write)


@pytest.mark.parametrize("name", ["runs", "runs/x", "runs/../new"])
@pytest.mark.parametrize("resolve", [output_folder, located, absolute])
def test_a_place_behind_a_link_that_leads_nowhere(
    tmp_path: Path, resolve: Callable[[Path], Path], name: str
) -> None:
    """As where a disk is not mounted: the folder would be made under its place, and hidden by it later."""
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "runs")
    with pytest.raises(
        InputError, match=r"runs is a link to .*disk/runs, which is not there; mount"
    ):
        resolve(tmp_path / name)
    assert not (tmp_path / "disk").exists()
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    assert resolve(tmp_path / "runs/x")


def test_a_full_disk_is_no_bad_input_and_leaves_nothing(tmp_path: Path) -> None:
    def write(new: Path) -> None:
        new.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DetpruneError, match="No space left on device; make room") as caught:
        complete_folder(tmp_path / "set", lambda: False, write)
    assert not isinstance(caught.value, InputError)
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_wrote_meanwhile_is_taken(tmp_path: Path) -> None:
    def write(new: Path) -> None:
        new.mkdir()
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "file").touch()

    there = lambda: (tmp_path / "set" / "file").exists()  # noqa: E731
    complete_folder(tmp_path / "set", there, write)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("set/images/train/inner", "set holds a drawn set .*name another folder"),
        ("file/a/b", "file is no folder; name another folder"),
        ("here", "it is the working directory or holds it; name a new folder"),
        (".", "it is the working directory or holds it"),
    ],
)
def test_a_place_where_a_new_folder_would_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, problem: str
) -> None:
    for folder in ("set/images/train", "here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "set" / SET).write_text("{}", encoding="utf-8")
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=problem):
        complete_folder(output_folder(tmp_path / place), lambda: False, Path.mkdir)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("path", ["link", "~nobody-of-this-name/set"])
def test_paths_that_lead_nowhere_are_bad_input(tmp_path: Path, path: str) -> None:
    link_to_itself(tmp_path)
    odd = tmp_path / path if path == "link" else Path(path)
    problem = pytest.raises(InputError, match=r"a path leads nowhere: .*name another place")
    with problem, plain_refusals():
        odd.expanduser().resolve()


def test_a_limit_of_file_sizes_has_its_own_way_out(tmp_path: Path) -> None:
    def write(_: Path) -> None:
        raise OSError(errno.EFBIG, "File too large")

    with pytest.raises(DetpruneError, match=r"File too large; raise the limit.*ulimit -f"):
        complete_folder(tmp_path / "set", lambda: False, write)


def test_a_cache_that_cannot_be_written_has_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for home in (tmp_path / "file", Path("/proc/none")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        folder = output_folder(user_cache() / "drawn" / "shapes-1")
        with pytest.raises(
            InputError, match=r"cannot write into .*set the variable XDG_CACHE_HOME"
        ):
            complete_folder(folder, lambda: False, lambda new: new.mkdir())


def test_a_path_that_is_no_text_is_refused() -> None:
    check_utf8_path(Path("/data/½ ü"))
    with pytest.raises(InputError, match=r"'/data/\\udcff' is not UTF-8.*rename the folder"):
        check_utf8_path(Path("/data/\udcff"))
