"""Ultralytics YOLO detectors: pruned inside Ultralytics' own trainer.

Ultralytics is licensed AGPL-3.0: importing this package means using a library under that licence.
Nothing else in detprune imports it.
"""

from detprune_yolo import environment

environment.prepare()  # before anything imports ultralytics
environment.keep_loggers_off()

from detprune.task import Adapter  # noqa: E402

adapter = Adapter(line="YOLO detectors, trained by Ultralytics")

__all__ = ["adapter"]
