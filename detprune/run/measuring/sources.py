"""The networks in a file or in a run folder, opened for a measurement."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from detprune.errors import InputError
from detprune.files import check_regular
from detprune.run.adapter import adapter_entry_points, implementation, load_adapter, load_recipe
from detprune.run.directory import RunDirectory
from detprune.run.given import refuse_several, tell_exchanged
from detprune.run.measuring.deployment import Deployed, deployed, sized
from detprune.run.task import Task

_STAGES = ("dense", "hard_pruned", "final")


@dataclass(frozen=True)
class Opened:
    """A network from a file.

    Attributes:
        network: the network, in float32 on the CPU.
        inputs: arguments of the network, for one sample.
        name: name of the network in titles.
        pt_bytes: size of the file.
    """

    network: nn.Module
    inputs: tuple[Tensor, ...]
    name: str
    pt_bytes: int


@runtime_checkable
class OpensFiles(Protocol):
    """A type of task whose files hold whole networks, which need no recipe."""

    @staticmethod
    def open_file(path: Path) -> Opened:
        """The network in a file; an `InputError` if the file holds no network of the task."""


@dataclass(frozen=True)
class Measured:
    """The networks to be measured.

    Attributes:
        pruned, dense: the network, and what it is compared with, if anything.
        after, before: the same two as they are deployed.
        inputs: arguments of the networks.
    """

    pruned: Opened
    dense: Opened | None
    after: Deployed
    before: Deployed | None
    inputs: tuple[Tensor, ...]

    @property
    def pt_bytes(self) -> tuple[int | None, int]:
        """Bytes of the files, dense and pruned."""
        return None if self.dense is None else self.dense.pt_bytes, self.pruned.pt_bytes

    @property
    def title(self) -> str:
        """Title of the measurement: the names of the networks."""
        return self.pruned.name + ("" if self.dense is None else f" against {self.dense.name}")


def measured(path: Path, against: Path | None, side: int | None, batch: int) -> Measured:
    """Open the networks to be measured.

    Args:
        path: a file, or the folder of a run; of a run pruned.pt is measured, and compared with its dense network.
        against: a file or a run's folder (whose pruned.pt is taken) to compare with.
        side: side of square images in pixels; None: that of the training.
        batch: images in one call.

    Raises:
        InputError: there is no such file, it holds no network, the run is not finished, or a size does not fit.
    """
    dense, pruned = _opened(path)
    if against is not None:
        dense = _opened(against)[1]
    return compared(dense, pruned, side, batch)


def compared(
    dense: Opened | None, pruned: Opened, side: int | None = None, batch: int = 1
) -> Measured:
    """Two networks as they are deployed, and inputs for both; arguments and errors as of `measured`."""
    after = deployed(pruned.network)
    inputs = sized(after, pruned.inputs, side, batch)
    before = None
    if dense is not None:
        before = deployed(dense.network)
        expected = [value.shape for value in sized(before, dense.inputs, side, batch)]
        if [value.shape for value in inputs] != expected:
            shapes = [
                " and ".join(str(tuple(s)) for s in v)
                for v in (expected, [t.shape for t in inputs])
            ]
            raise InputError(
                f"{dense.name} takes inputs of shape {shapes[0]}, but {pruned.name} of shape {shapes[1]}; give a "
                "--size that fits both, or networks for the same inputs"
            )
    return Measured(pruned, dense, after, before, inputs)


def _opened(path: Path) -> tuple[Opened | None, Opened]:
    """The dense network, if the path is a run, and the network itself."""
    if path.is_dir():
        return _of_run(path)
    check_regular(path, "give a .pt file, or the folder of a run")
    for folder in (path.parent, path.parent.parent):
        if (folder / "recipe.yaml").is_file():
            task = _task(folder)
            return None, _of_task(task, _network(task, path), path.stat().st_size, str(path))
    return None, _of_lone_file(path)


def _of_run(folder: Path) -> tuple[Opened, Opened]:
    run = RunDirectory(folder)
    refuse_several(folder)
    if not (folder / "recipe.yaml").is_file():
        raise InputError(
            f"{folder} holds no run (no recipe.yaml); give a run's folder, or a .pt file"
        )
    if not run.pruned.is_file() or not (run.checkpoints / "dense.pt").is_file():
        raise InputError(
            f"{folder} holds no finished run (pruned.pt and checkpoints/dense.pt); finish it with "
            f"{run.resume_command}"
        )
    tell_exchanged(folder)
    return networks_of(_task(folder))


def networks_of(task: Task) -> tuple[Opened, Opened]:
    """The dense and the pruned network of a finished run."""
    run = task.run
    dense, pruned = task.network_after("dense"), task.load_network(run.pruned)
    written = io.BytesIO()
    torch.save(task.pruned_file(dense, None), written)
    return (
        _of_task(task, dense, len(written.getbuffer()), "dense"),
        _of_task(task, pruned, run.pruned.stat().st_size, f"{task.model_name}, {run.path}"),
    )


def _task(folder: Path) -> Task:
    found, recipe = load_recipe(folder / "recipe.yaml")
    return found.task(recipe, RunDirectory(folder))


def _network(task: Task, path: Path) -> nn.Module:
    if path.resolve() == task.run.pruned.resolve():
        return task.load_network(path)
    if path.parent.resolve() == task.run.checkpoints.resolve() and path.stem in _STAGES:
        return task.network_after(path.stem)
    opener: object = task
    if isinstance(opener, OpensFiles):
        return opener.open_file(path).network
    return task.load_network(path)


def _of_task(task: Task, network: nn.Module, pt_bytes: int, name: str) -> Opened:
    inputs, _ = task.example_inputs(network)
    tensors = tuple(value for value in inputs if isinstance(value, Tensor))
    if len(tensors) != len(inputs):
        raise InputError(
            "the network is called with arguments that are not tensors, and cannot be measured"
        )
    return Opened(network, tensors, name, pt_bytes)


def open_whole_network(path: Path) -> Opened:
    """The network in a file, opened by the first adapter whose files hold whole networks.

    Raises:
        InputError: there is no such adapter, or it says what is wrong with the file.
    """
    missing = None
    for name in adapter_entry_points():
        try:
            if load_adapter(name).implement is None:
                continue
            task: object = implementation(name).task
        except InputError as error:
            missing = error
            continue
        if isinstance(task, OpensFiles):
            return task.open_file(path)
    raise InputError(
        f"there is no recipe.yaml beside {path} that says which network it is of; copy it from the run's folder"
        + ("" if missing is None else f". Ultralytics' files need no recipe, but {missing}")
    )


def _of_lone_file(path: Path) -> Opened:
    try:
        return open_whole_network(path)
    except InputError as error:
        raise InputError(
            f"{error}\nA file of another task is measured with the recipe.yaml of its run beside it, or "
            "where it was written: in the run's folder"
        ) from error
