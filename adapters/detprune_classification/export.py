"""``detprune export`` for image classifiers."""

from pathlib import Path

import torch

from detprune.run.directory import RunDirectory
from detprune.run.export.onnx_export import export_onnx
from detprune.run.recipe import read_yaml, validate
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationNetworkTask


def export(run_dir: Path, out: Path | None) -> list[str]:
    """Export ``pruned.pt`` of a run to ONNX, also one from which channels were removed; returns lines to print.

    Input ``images``: (N, channels, H, W) as the run's data gives them, normalised. Output ``logits``: (N, classes). N
    is open.

    Raises:
        InputError: a run or its data that cannot be read.
        DetpruneError: what was written does not compute what PyTorch does.
    """
    task = ClassificationNetworkTask(
        validate(ClassificationRecipe, read_yaml(run_dir / "recipe.yaml"))
    )
    run = RunDirectory(run_dir)
    with run.own_file():
        network = task.load_network(run.pruned).eval()
    network = network.cpu().float().to(memory_format=torch.contiguous_format)
    (image,), _ = task.example_inputs(network)
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"expected an image, got {type(image).__name__}")
    shape = tuple(image.shape[1:])
    path = out or run_dir / "pruned.onnx"
    checked = export_onnx(network, shape, path, extra="classification")
    classes = len(task.data.classes)
    return [
        str(path),
        f"images (N, {', '.join(map(str, shape))}), normalised as in training → logits (N, {classes})",
        *checked.lines("logits"),
    ]
