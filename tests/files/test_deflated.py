"""Deflated files: smaller by the zeros, the same bits in plain ``torch.load``, and never mapped wrong."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detprune import InputError
from detprune.files import load_tensors, safe_load
from detprune.files.deflated import deflate, save_deflated
from detprune.run.directory import RunDirectory


def weights(rate: float, dtype: torch.dtype, width: int = 96) -> dict[str, Tensor]:
    """A network's weights, of which the largest 1 / rate stay."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for number, scale in enumerate((1, 2, 4)):
        weight = torch.randn(scale * width, width, 3, 3, generator=generator) / 50
        if rate > 1:
            flat = weight.abs().flatten()
            smallest = flat.kthvalue(int(len(flat) * (1 - 1 / rate))).values
            weight = weight.masked_fill(weight.abs() <= smallest, 0.0)  # −0.0 would cost a third
        state[f"{number}.weight"] = weight.to(dtype)
        state[f"{number}.bias"] = torch.randn(scale * width, generator=generator).to(dtype)
    return state


def assert_same(found: Any, wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].numpy().tobytes() == value.numpy().tobytes(), name


@pytest.mark.parametrize(
    ("dtype", "rate", "smaller"),
    [
        (torch.float16, 1, 1.05),
        (torch.float16, 3.33, 2.5),
        (torch.float16, 10, 6.3),
        (torch.float16, 20, 11),
        (torch.float32, 1, 1.05),
        (torch.float32, 3.33, 2.8),
        (torch.float32, 10, 7.4),
        (torch.float32, 20, 13.5),
        (torch.bfloat16, 10, 6.5),
    ],
)
def test_zeros_make_files_smaller(
    tmp_path: Path, dtype: torch.dtype, rate: float, smaller: float
) -> None:
    state = weights(rate, dtype)
    dense, pruned = tmp_path / "dense.pt", tmp_path / "pruned.pt"
    torch.save(state, dense)
    save_deflated(state, pruned)
    assert dense.stat().st_size / pruned.stat().st_size > smaller
    loaded = torch.load(pruned, weights_only=True)
    for name, value in state.items():
        assert torch.equal(loaded[name], value)
    with pytest.raises(RuntimeError, match="storage"):
        torch.load(pruned, mmap=True)


def test_our_own_readers_take_them(tmp_path: Path) -> None:
    state = weights(10, torch.float32)
    save_deflated(state, tmp_path / "pruned.pt")
    assert_same(load_tensors(tmp_path / "pruned.pt", "way out"), state)
    assert_same(safe_load(tmp_path / "pruned.pt", "weights"), state)


def odd_values() -> dict[str, Any]:
    shared = torch.arange(600, dtype=torch.float32)
    return {
        "nothing": {},
        "plain values": {"epoch": 3, "name": "ü" * 500, "list": [1.5, None, True]},
        "no elements": {"x": torch.zeros(0, 3), "y": torch.zeros(10_000)},
        "scalar": {"x": torch.tensor(3)},
        "views of one storage": {"a": shared[:300].reshape(30, 10), "b": shared[::2]},
        "special numbers": {"x": torch.tensor([float("nan"), -0.0, float("inf")] * 999)},
        "integers and booleans": {"i": torch.arange(9999), "b": torch.arange(9999) % 3 == 0},
        "channels last": {"x": torch.randn(4, 8, 5, 5).to(memory_format=torch.channels_last)},
        "many small ones": {str(i): torch.full((3,), float(i)) for i in range(300)},
        "random": {"x": torch.randint(0, 256, (5000,), dtype=torch.uint8)},
        "complex": {"x": torch.zeros(999, dtype=torch.complex64)},
    }


@pytest.mark.parametrize("name", odd_values())
def test_odd_values_come_back_and_are_never_mapped_wrong(tmp_path: Path, name: str) -> None:
    value, path, plain = odd_values()[name], tmp_path / "odd.pt", tmp_path / "plain.pt"
    save_deflated(value, path)
    torch.save(value, plain)
    assert path.stat().st_size <= plain.stat().st_size
    for mmap in (False, True):
        try:
            loaded = torch.load(path, weights_only=True, mmap=mmap)
        except RuntimeError:
            assert mmap
            continue
        for key, wanted in value.items():
            if isinstance(wanted, Tensor):
                assert loaded[key].stride() == wanted.stride()
                torch.testing.assert_close(loaded[key], wanted, rtol=0, atol=0, equal_nan=True)
                assert loaded[key].data_ptr() % 64 == wanted.storage_offset() % 64 or not mmap
            else:
                assert loaded[key] == wanted


def test_small_tensors_stay_as_they_are_and_can_be_mapped(tmp_path: Path) -> None:
    state = {str(i): torch.full((3,), float(i)) for i in range(300)}
    save_deflated(state, tmp_path / "small.pt")
    with zipfile.ZipFile(tmp_path / "small.pt") as archive:
        kinds = {r.compress_type for r in archive.infolist() if "/data/" in r.filename}
    assert kinds == {zipfile.ZIP_STORED}
    mapped = torch.load(tmp_path / "small.pt", mmap=True)
    assert_same(mapped, state)
    assert all(value.data_ptr() % 64 == 0 for value in mapped.values())


def test_a_file_of_somebody_else_is_deflated(tmp_path: Path) -> None:
    state = weights(10, torch.float16)
    torch.save(state, tmp_path / "best.pt")
    deflate(tmp_path / "best.pt", tmp_path / "smaller.pt")
    assert_same(torch.load(tmp_path / "smaller.pt", weights_only=True), state)
    assert 6 * (tmp_path / "smaller.pt").stat().st_size < (tmp_path / "best.pt").stat().st_size
    deflate(tmp_path / "smaller.pt", tmp_path / "again.pt")  # nothing to gain, nothing lost
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "smaller.pt").read_bytes()
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    deflate(tmp_path / "old.pt", tmp_path / "same.pt")
    assert (tmp_path / "same.pt").read_bytes() == (tmp_path / "old.pt").read_bytes()


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.pt", "second.pt"):
        save_deflated(weights(3.33, torch.float16, width=16), tmp_path / name)
    assert (tmp_path / "first.pt").read_bytes() == (tmp_path / "second.pt").read_bytes()


def test_a_run_deflates_its_result_and_not_what_it_writes_often(tmp_path: Path) -> None:
    run, state = RunDirectory(tmp_path), weights(10, torch.float32)
    run.checkpoints.mkdir()
    run.save(run.pruned, state)
    run.save(run.checkpoints / "dense.pt", state)
    assert 7 * run.pruned.stat().st_size < (run.checkpoints / "dense.pt").stat().st_size
    assert_same(torch.load(run.checkpoints / "dense.pt", mmap=True), state)
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_unpacks_to_more_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.pt"
    save_deflated({"weight": torch.zeros(1_000_000)}, path)
    assert path.stat().st_size < 10_000
    assert load_tensors(path, "way out").keys() == {"weight"}
    monkeypatch.setattr("detprune.files.tensors.machine_memory", lambda: 3_999_999)
    for read in (lambda: load_tensors(path, "way out"), lambda: safe_load(path, "weights")):
        with pytest.raises(InputError, match=r"unpacks to 4,\d{3},\d{3} bytes, but this machine"):
            read()
