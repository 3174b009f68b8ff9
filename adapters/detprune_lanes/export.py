"""``detprune export`` for lane detectors."""

from pathlib import Path

import torch

from detprune.channels import CoupledChannels
from detprune.errors import InputError
from detprune.run.directory import RunDirectory
from detprune.run.export.onnx_export import export_onnx
from detprune.run.loading import load
from detprune.run.recipe import read_yaml, validate
from detprune_lanes.network.checkpoints import load_checkpoint
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.recipe import LaneRecipe


def export(run_dir: Path, out: Path | None) -> list[str]:
    """Export ``pruned.pt`` of a run to ONNX without its auxiliary branch; return lines to print.

    Raises:
        InputError: a run that cannot be read.
        DetpruneError: what was written does not compute what PyTorch does.
    """
    recipe = validate(LaneRecipe, read_yaml(run_dir / "recipe.yaml"))
    spec = recipe.model
    network = LaneNetwork(spec.trunk, spec.grid, spec.size)
    run = RunDirectory(run_dir)
    with run.own_file():
        if isinstance(recipe.set, CoupledChannels):
            small = load(run.pruned)
            if not isinstance(small, LaneNetwork):
                raise InputError(f"{run.pruned} holds no lane network")
            network = small
        else:
            load_checkpoint(network, run.pruned)
    return export_lanes(network, out or run_dir / "pruned.onnx")


def export_lanes(network: LaneNetwork, path: Path, *, tolerance: float = 1e-4) -> list[str]:
    """Write a lane network without its auxiliary branch, in float32; returns lines to print.

    Input ``images``: (N, 3, H, W) of the network's size, RGB, normalised with ImageNet's mean and
    standard deviation. Output ``logits``: (N, cells + 1, rows, lanes). N is open.

    Args:
        network: is not changed.
        path: the ``.onnx`` file.
        tolerance: allowed difference of logits, as a part of the largest one.

    Raises:
        InputError, NonFiniteError, DetpruneError: as ``detprune.run.export.onnx_export.export_onnx``.
    """
    deployed = network.without_aux().cpu().float().to(memory_format=torch.contiguous_format)
    height, width = deployed.size
    grid = deployed.grid
    checked = export_onnx(deployed, (3, height, width), path, extra="lanes", tolerance=tolerance)
    return [
        str(path),
        f"images (N, 3, {height}, {width}), RGB with ImageNet's mean and std → "
        f"logits (N, {grid.cells + 1}, {grid.rows}, {grid.lanes})",
        *checked.lines("logits"),
    ]
