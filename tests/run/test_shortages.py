"""Memory, open files and processes that the system does not give: a message, and the way out."""

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from detprune.errors import StorageError
from detprune.files import load_tensors, safe_load
from detprune.files.storage import plain_refusals
from detprune.run.directory import RunDirectory


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
        RuntimeError(
            "unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"
        ),
        RuntimeError("can't start new thread"),
    ],
)
def test_files_and_processes_that_the_system_does_not_give(
    tmp_path: Path, error: Exception
) -> None:
    run = RunDirectory(tmp_path)
    with (
        pytest.raises(StorageError, match=r"ulimit -n.*fewer workers.*--resume"),
        run.storage_errors(),
    ):
        raise error
    with pytest.raises(StorageError, match=r"ulimit -n.*call the command again"), plain_refusals():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes."
        ),
        RuntimeError("could not create a primitive"),
        RuntimeError(
            "Caught RuntimeError in DataLoader worker process 1.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_1>: Success (0)"
        ),
        RuntimeError("could not create a memory object"),
        RuntimeError("$ Torch: unable to mmap memory: you tried to mmap 1GB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    ],
)
def test_memory_that_is_not_there(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(
            StorageError, match=r"not enough memory \(.+\); take a smaller batch.*--resume"
        ),
        RunDirectory(tmp_path).storage_errors(),
    ):
        raise error
    with pytest.raises(StorageError, match=r"smaller.*call the command again"), plain_refusals():
        raise error


def test_a_worker_without_memory_is_told_with_its_own_reason(tmp_path: Path) -> None:
    error = RuntimeError("Caught RuntimeError in worker 1.\nRuntimeError: CUDA out of memory.")
    wanted = r"memory \(RuntimeError: CUDA out of memory\.\)"
    with pytest.raises(StorageError, match=wanted), RunDirectory(tmp_path).storage_errors():
        raise error


def test_an_operation_that_onednn_lacks_is_not_called_a_want_of_memory(tmp_path: Path) -> None:
    said = "could not create a primitive descriptor for the matmul primitive. Run workload with ..."
    with pytest.raises(RuntimeError, match="descriptor"), RunDirectory(tmp_path).storage_errors():
        raise RuntimeError(said)


class Killed(Dataset[torch.Tensor]):
    """Four samples; the process that loads the last one is killed, as by a system without memory."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 3:
            time.sleep(0.5)  # the samples before it have arrived
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)


def test_a_process_that_loads_data_is_killed(tmp_path: Path) -> None:
    loader = DataLoader(Killed(), batch_size=1, num_workers=1)
    wanted = r"loads data was ended .*fewer workers.*--resume"
    with pytest.raises(StorageError, match=wanted), RunDirectory(tmp_path).storage_errors():
        list(loader)
    with pytest.raises(StorageError, match=wanted), RunDirectory(tmp_path).storage_errors():
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


def test_without_memory_a_file_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.ones(3)}, path)

    def no_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", no_memory)
    for read in (lambda: load_tensors(path, "delete it"), lambda: safe_load(path, "another")):
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            read()


def test_a_small_shared_memory_is_named() -> None:
    """As in a container of docker, whose /dev/shm has 64 MB."""
    error = RuntimeError(
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback …\nRuntimeError: unable to allocate "
        "shared memory(shm) for file </torch_1_2_0>: No space left on device (28)\n"
    )
    with (
        pytest.raises(StorageError, match=r"shared memory \(unable.*--shm-size.*workers: 0"),
        plain_refusals(),
    ):
        raise error
