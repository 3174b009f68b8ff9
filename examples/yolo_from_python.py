# SPDX-License-Identifier: AGPL-3.0-or-later
"""Halves a YOLOv8n in Ultralytics' own trainer, on a few drawn shapes; too short a training to be of use.

    python examples/yolo_from_python.py

With a checkpoint and a data set of yours: YOLO("yolov8n.pt"), data="coco.yaml", and epochs that suit them.
"""

import tempfile
from pathlib import Path

from ultralytics import YOLO

import detprune as dp
import detprune_yolo  # before Ultralytics
from detprune_yolo.data.drawing import DrawnSet, draw

folder = Path(tempfile.mkdtemp())
data = draw(
    DrawnSet(train=96, val=32, size=64, classes=2, objects=2, smallest=0.3), folder / "shapes"
)
options = {
    "data": data,
    "imgsz": 64,
    "batch": 16,
    "nbs": 16,
    "device": "cpu",
    "workers": 0,
    "plots": False,
}
options |= {
    "project": folder / "runs",
    "optimizer": "SGD",
    "lr0": 0.005,
    "warmup_epochs": 0,
    "mosaic": 0,
}

trainer = detprune_yolo.constrained(
    dp.ADMM(rho=dp.Pull(2, 4), free_support=True, ramp=0.75),
    dp.Budget(macs=0.5),
    dp.CoupledChannels(round_to=8),
    every=0.5,  # two outer iterations an epoch
)
YOLO("yolov8n.yaml").train(trainer=trainer, epochs=3, name="half", **options)

weights = folder / "runs" / "half" / "weights" / "shrunk.pt"
small = YOLO(weights)
small.train(trainer=detprune_yolo.RetrainingTrainer, epochs=2, name="retrained", **options)

best = folder / "runs" / "retrained" / "weights" / "best.pt"
hard_pruned = weights.with_name("hard_pruned.pt")  # with the channels, all zero, still in it
before, after = (sum(p.numel() for p in YOLO(f).model.parameters()) for f in (hard_pruned, best))
print(f"{best}: {after:,} of {before:,} parameters")
image = next((folder / "shapes").rglob("*.png"))
print("plain Ultralytics finds:", YOLO(best).predict(image, imgsz=64)[0].boxes.xyxy)
