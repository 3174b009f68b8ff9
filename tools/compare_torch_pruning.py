"""What Torch-Pruning makes of a detector at the same share of MACs and the same epochs of retraining.

    pip install torch-pruning==1.6.1
    python tools/compare_torch_pruning.py runs/study/dense_0/checkpoints/dense/weights/best.pt shapes.yaml --out runs/tp

Channels of least magnitude by group are taken out at once, one ratio for all layers; the head's last convolutions stay.
The small network is then retrained as detprune's own small networks are, and measured by pycocotools.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import detprune_yolo
from detprune_yolo.channels import mark
from detprune_yolo.kinds import DETECT
from detprune_yolo.measure.validation import validate
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint

# isort: split
from ultralytics import YOLO

_HALVINGS = 9


def macs(network: nn.Module, images: Tensor) -> float:
    """Multiply-accumulate operations of one call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    return float(counter.get_total_flops()) / 2


def shrunk(model: Any, images: Tensor, ratio: float, round_to: int) -> Any:
    """A copy without a share of its channels."""
    import torch_pruning  # type: ignore[import-not-found,unused-ignore]

    clone = copy.deepcopy(model).train()
    for parameter in clone.parameters():
        parameter.requires_grad_(True)
    head = clone.model[-1]
    torch_pruning.pruner.MagnitudePruner(
        clone,
        images,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        round_to=round_to,
        ignored_layers=[branch[-1] for branches in (head.cv2, head.cv3) for branch in branches]
        + [head.dfl],
    ).step()
    return clone.eval()


def bisected(share_of: Callable[[float], float], target: float) -> float:
    """The least ratio found whose network is at or below the target."""
    low, high = 0.0, 0.95
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if share_of(middle) <= target else (middle, high)
    return high


def main(
    dense: Annotated[Path, typer.Argument(help="Ultralytics checkpoint of the dense detector.")],
    data: Annotated[Path, typer.Argument(help="Ultralytics' data yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for what comes out.")],
    share: Annotated[float, typer.Option("--macs", help="Share of the MACs that is left.")] = 0.5,
    round_to: Annotated[int, typer.Option(help="Widths are multiples of it.")] = 8,
    epochs: Annotated[int, typer.Option(help="Epochs of retraining.")] = 12,
    size: Annotated[int, typer.Option(help="Image size in pixels.")] = 128,
) -> None:
    """Remove channels by Torch-Pruning, measure, retrain, measure."""
    model: Any = load_model(dense)
    images = torch.zeros(1, 3, size, size)
    whole = macs(model, images)
    ratio = bisected(lambda r: macs(shrunk(model, images, r, round_to), images) / whole, share)
    small = shrunk(model, images, ratio, round_to)
    out.mkdir(parents=True, exist_ok=True)
    small.args = vars(small.args) if not isinstance(small.args, dict) else small.args
    mark(small)  # the trainer takes the network as it is
    save_checkpoint(out / "removed.pt", pruned_checkpoint(small, None))

    def scores(network: nn.Module) -> float:
        return validate(network, data, imgsz=size).of(DETECT)["mAP@0.5"]

    found = {"macs": macs(small, images) / whole, "dense": scores(model), "removed": scores(small)}
    print(found, flush=True)
    YOLO(str(out / "removed.pt")).train(
        trainer=detprune_yolo.RetrainingTrainer,
        data=str(data),
        epochs=epochs,
        imgsz=size,
        batch=16,
        nbs=16,
        optimizer="SGD",
        lr0=0.004,
        momentum=0.9,
        warmup_epochs=0,
        mosaic=0,
        device="cpu",
        project=str(out.absolute()),
        name="retrained",
        verbose=False,
    )
    found["final"] = scores(load_model(out / "retrained" / "weights" / "best.pt"))
    (out / "result.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print(found)


if __name__ == "__main__":
    typer.run(main)
