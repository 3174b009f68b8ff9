"""What the Python blocks of a page find there already: the reader's own network, data and loop, here tiny.

Where a page names a large data set or many epochs, ``REPLACED`` says what the test runs in its place.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

Names = dict[str, Any]

_QUICK = (
    'data="shapes/shapes.yaml", project=PROJECT, imgsz=64, batch=8, nbs=8, device="cpu", '
    "warmup_epochs=0, plots=False, verbose=False"
)
_YOLO = [('data="coco.yaml"', _QUICK), ("epochs=25", "epochs=1"), ("epochs=50", "epochs=1")]

REPLACED: dict[str, list[tuple[str, str]]] = {
    "README.md": _YOLO,
    "docs/guides/yolo.md": [*_YOLO, ("epochs=10", "epochs=1")],
    # no test depends on a clock; tests/run/test_latency_run.py runs it
    "docs/guides/latency.md": [
        ("(model, channels, dp.Budget(latency=0.7))", " and dp.Budget(macs=0.7)")
    ],
}
"""Page → (what stands there, what is run); a replacement that finds nothing is a mistake."""


def batches(count: int, size: int = 16, classes: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Random images of 3 × 16 × 16 and their classes."""
    return [(torch.randn(8, 3, size, size), torch.randint(classes, (8,))) for _ in range(count)]


def network(classes: int = 4) -> nn.Module:
    """Two convolutions and a head."""
    model = nn.Sequential()
    model.add_module("conv1", nn.Conv2d(3, 16, 3, padding=1))
    model.add_module("norm", nn.BatchNorm2d(16))
    model.add_module("act", nn.ReLU())
    model.add_module("conv2", nn.Conv2d(16, 32, 3, stride=2, padding=1))
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("head", nn.Linear(32, classes))
    return model


def own_loop(folder: Path) -> Names:
    """A classifier, and the same network in a LightningModule."""
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.network(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    model = network()
    return {
        "torch": torch,
        "model": model,
        "dense": network(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        "loader": torch.utils.data.DataLoader(batches(8), batch_size=None),
        "epochs": 2,
        "criterion": nn.functional.cross_entropy,
        "module": Module(),
    }


def lanes(folder: Path) -> Names:
    """The original's train.py in small: a trunk and an auxiliary branch."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
            self.cls = nn.Linear(64, 8)
            self.aux_head = nn.Conv2d(16, 2, 1)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = self.trunk(images)
            return self.cls(features.flatten(1)), self.aux_head(features)

    def loss(cls_out: Tensor, cls: Tensor, seg_out: Tensor, seg: Tensor) -> Tensor:
        return nn.functional.cross_entropy(cls_out, cls) + nn.functional.cross_entropy(seg_out, seg)

    frames = [
        (torch.randn(4, 3, 16, 16), torch.randint(8, (4,)), torch.randint(2, (4, 2, 2)))
        for _ in range(3)
    ]
    return {
        "net": Net(),
        "cfg": SimpleNamespace(epoch=2),
        "get_optimizer": lambda net, cfg: torch.optim.Adam(net.parameters(), lr=4e-4),
        "get_loss": loss,
        "train_loader": frames,
    }


def channels(folder: Path) -> Names:
    """A network for images of 64 px, and 64 steps."""
    model = network()
    return {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        "steps": 64,
        "batches": batches(64),
        "criterion": nn.functional.cross_entropy,
    }


def deployment(folder: Path) -> Names:
    """A pruned file."""
    torch.save(network().state_dict(), folder / "pruned.pt")
    return {}


def method(folder: Path) -> Names:
    """A network and batches."""
    return {"model": network(), "batches": batches(6)}


def figure(folder: Path) -> Names:
    """A finished run, and what the report reads of it."""
    import places

    from report_run import fake_run

    fake_run(folder / "runs" / "my_run")
    return {"run": places.read_run(folder / "runs" / "my_run")}


def readme(folder: Path) -> Names:
    """What the blocks of the README need together."""
    return {**yolo(folder), **own_loop(folder)}


def yolo(folder: Path) -> Names:
    """Tiny checkpoints under the names of the page, and drawn images in place of COCO."""
    import detprune_yolo  # noqa: F401 (prepares the environment before Ultralytics)

    # isort: split
    from ultralytics import YOLO
    from ultralytics.nn.tasks import yaml_model_load
    from ultralytics.utils import YAML

    from command_line import detprune_command

    detprune_command("data", "shapes", folder / "shapes", "--train", 16, "--val", 8, "--size", 64)
    description = yaml_model_load("yolov3-tiny.yaml") | {"width_multiple": 0.125, "nc": 6}
    YAML.save(folder / "tiny.yaml", description)
    for name in ("yolov3-tinyu.pt", "yolov8n.pt"):
        YOLO(folder / "tiny.yaml", task="detect").save(folder / name)
    return {"PROJECT": str(folder / "runs" / "detect")}  # its own default, but not under pytest


SETUPS: dict[str, Callable[[Path], Names]] = {
    "README.md": readme,
    "docs/guides/own_loop.md": own_loop,
    "docs/guides/lanes.md": lanes,
    "docs/guides/channels.md": channels,
    "docs/guides/latency.md": channels,
    "docs/guides/deployment.md": deployment,
    "docs/guides/yolo.md": yolo,
    "docs/extending/method.md": method,
    "docs/extending/set.md": method,
    "docs/extending/figure.md": figure,
}
"""Page → what makes the names that its blocks use."""
