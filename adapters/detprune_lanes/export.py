"""``detprune export`` for lane detectors."""

from pathlib import Path

from detprune.channels import CoupledChannels
from detprune.errors import InputError
from detprune.run.directory import RunDirectory
from detprune.run.loading import load
from detprune.run.recipe import read_yaml, validate
from detprune_lanes.network.checkpoints import load_checkpoint
from detprune_lanes.network.model import LaneNetwork
from detprune_lanes.network.onnx_export import export_onnx
from detprune_lanes.recipe import LaneRecipe

FORMATS = ("onnx",)


def export(run_dir: Path, file_format: str, out: Path | None) -> list[str]:
    """Export ``pruned.pt`` of a run without its auxiliary branch; return lines to print.

    Raises:
        InputError: an unknown format, or a run that cannot be read.
        DetpruneError: what was written does not compute what PyTorch does.
    """
    if file_format not in FORMATS:
        raise InputError(f"unknown export format {file_format!r}; allowed: {', '.join(FORMATS)}")
    recipe = validate(LaneRecipe, read_yaml(run_dir / "recipe.yaml"))
    spec = recipe.model
    network = LaneNetwork(spec.trunk, spec.grid, spec.size)
    run = RunDirectory(run_dir)
    with run.own_file():
        if isinstance(recipe.set, CoupledChannels):
            small = load(run.pruned)
            if not isinstance(small, LaneNetwork):
                raise InputError(f"{run.pruned} holds no lane network")
            network = small.without_aux()
        else:
            load_checkpoint(network, run.pruned)
    return export_onnx(network, out or run_dir / "pruned.onnx")
