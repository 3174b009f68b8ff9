"""Augmentation of training frames: image and lanes are rotated, then shifted, together.

The ranges are those of Ultra-Fast-Lane-Detection's ``data/dataloader.py``. It draws whole degrees and
whole pixels of the 1280x720 frame, and resamples image and label mask after each step; here the angle
is continuous, the shift in whole pixels of the stored image, and both are one warp. So a part of the image
that the rotation moves out of the frame and the shift brings back is kept here, and black in the original.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from detprune.errors import InputError
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH


@dataclass(frozen=True)
class Augmentation:
    """The largest rotation and shifts; each frame's are drawn evenly between the negative and the positive value.

    Attributes:
        rotate: rotation about the image's centre, in degrees.
        shift_y, shift_x: shifts in pixels of the 1280x720 frame.

    Raises:
        InputError: a value out of range.
    """

    rotate: float = 6.0
    shift_y: float = 100.0
    shift_x: float = 200.0

    def __post_init__(self) -> None:
        limits = {"rotate": 90, "shift_y": FRAME_HEIGHT, "shift_x": FRAME_WIDTH}
        for name, high in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise InputError(f"augment.{name} is {value}; allowed is a number from 0 to {high}")

    def transform(self) -> A.Compose:
        """The augmentation as a transform of an image and its keypoints; uncovered edges are black."""
        shift = {"x": self.shift_x / FRAME_WIDTH, "y": self.shift_y / FRAME_HEIGHT}
        affine = A.Affine(
            rotate=(-self.rotate, self.rotate),
            translate_percent={axis: (-share, share) for axis, share in shift.items()},
            p=1.0,
        )
        keypoints = A.KeypointParams("xy", remove_invisible=False, check_each_transform=False)
        return A.Compose([affine], keypoint_params=keypoints)


def vary(
    transform: A.Compose, image: NDArray[np.uint8], points: Sequence[NDArray[np.float64]], seed: int
) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
    """An augmented copy of an image and of the points of its lanes, as the seed decides.

    Args:
        transform: the result of `Augmentation.transform`; this function sets its random state.
        image: (h, w, 3), the frame at any size.
        points: (x, y) along each lane, (n, 2), pixels of the frame; they may end up outside.
        seed: from 0 up.
    """
    height, width = image.shape[:2]
    scale = np.array([width / FRAME_WIDTH, height / FRAME_HEIGHT])
    # A pixel's coordinates are those of its centre, so that its edges lie half a pixel around them.
    stored = (np.concatenate(points) + 0.5) * scale - 0.5
    transform.set_random_seed(seed)
    varied = transform(image=image, keypoints=stored)
    moved = (np.asarray(varied["keypoints"], np.float64).reshape(-1, 2) + 0.5) / scale - 0.5
    ends = np.cumsum([len(line) for line in points])[:-1]
    return varied["image"], np.split(moved, ends)
