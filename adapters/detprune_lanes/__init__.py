"""Ultra-Fast-Lane-Detection: lane detectors, pruned inside Lightning's Trainer."""

import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks the network for its newest version
