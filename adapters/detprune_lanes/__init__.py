"""Ultra-Fast-Lane-Detection: lane detectors, pruned inside Lightning's Trainer."""

import os

os.environ.setdefault(
    "NO_ALBUMENTATIONS_UPDATE", "1"
)  # albumentations asks the internet for its newest version
