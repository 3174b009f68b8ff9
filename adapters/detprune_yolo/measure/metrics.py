# SPDX-License-Identifier: AGPL-3.0-or-later
"""The numbers that are measured of a detector: pycocotools', and Ultralytics' own on the same detections."""

from detprune.run.metrics import Metric

HEADLINE = Metric("mAP@0.5")
COCO = Metric("mAP@[.5:.95]")
ULTRALYTICS = Metric("mAP50 (Ultralytics' own)")
"""Also what is measured after every epoch, by Ultralytics' trainer."""
ULTRALYTICS_50_95 = Metric("mAP50-95 (Ultralytics' own)")

METRICS = (HEADLINE, COCO, ULTRALYTICS, ULTRALYTICS_50_95)
