# SPDX-License-Identifier: AGPL-3.0-or-later
"""Ultralytics YOLO detectors: pruned inside Ultralytics' own trainer.

Ultralytics is licensed AGPL-3.0: importing this package means using a library under that licence.
Nothing else in detprune imports it. On import, this package sets Ultralytics' environment variables; it imports
Ultralytics itself when one of its names is first used.
"""

import lazy_loader

from detprune_yolo import environment

environment.prepare()  # before anything imports ultralytics

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
