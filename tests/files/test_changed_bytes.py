"""Bits that a disk or a copy turned in files of tensors; torch.load takes them for other weights."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import detprune as dp
from detprune.files import load_tensors, safe_load
from detprune.files.deflated import save_deflated

READERS = (
    lambda path: load_tensors(path, "delete it and resume"),
    lambda path: safe_load(path, "another checkpoint"),
    dp.load,
)


def turn_a_bit(path: Path, record: str = "data/0") -> None:
    with zipfile.ZipFile(path) as archive:
        found = next(r for r in archive.infolist() if r.filename.endswith(record))
        middle = found.header_offset + 30 + len(found.filename) + found.compress_size // 2 + 64
    content = bytearray(path.read_bytes())
    content[middle] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("save", [torch.save, save_deflated])
@pytest.mark.parametrize("read", READERS)
def test_a_file_with_a_turned_bit_is_damaged(
    tmp_path: Path, save: Callable[[object, Path], None], read: Callable[[Path], object]
) -> None:
    weight = torch.randn(5000)
    weight[500:] = 0
    path = tmp_path / "weights.pt"
    save({"weight": weight}, path)
    turn_a_bit(path)
    with pytest.raises(
        dp.InputError, match=r"weights\.pt is damaged: the bytes of its record .*/data/0 .*; \w+"
    ):
        read(path)


def test_without_checksums_a_file_is_read(tmp_path: Path) -> None:
    path, weight = tmp_path / "weights.pt", torch.randn(5000)
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": weight}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(load_tensors(path, "way out")["weight"], weight)


@pytest.mark.parametrize("read", READERS)
def test_a_checkpoint_that_was_packed_again_with_other_folders_is_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    torch.save({"weight": torch.randn(5)}, tmp_path / "weights.pt")
    path = tmp_path / "again.pt"
    with zipfile.ZipFile(tmp_path / "weights.pt") as first, zipfile.ZipFile(path, "w") as second:
        for name in first.namelist():
            second.writestr(name, first.read(name))
            second.writestr(f"__MACOSX/{name}", b"attributes")
    problem = (
        r"again\.pt is a checkpoint that was unpacked .*'?__MACOSX'? beside the folder 'weights'"
    )
    with pytest.raises(dp.InputError, match=problem):
        read(path)
