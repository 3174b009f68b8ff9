# SPDX-License-Identifier: AGPL-3.0-or-later
"""The metrics of a detector: those of pycocotools, and Ultralytics' own on the same detections."""

from detprune.run.metrics import Metric

HEADLINE = Metric("mAP@0.5")
COCO = Metric("mAP@[.5:.95]")
ULTRALYTICS = Metric("mAP50 (Ultralytics' own)")
"""Ultralytics' trainer measures it after every epoch, too."""
ULTRALYTICS_50_95 = Metric("mAP50-95 (Ultralytics' own)")

METRICS = (HEADLINE, COCO, ULTRALYTICS, ULTRALYTICS_50_95)
