"""Signs of label files that hold no lanes, or lanes in units other than pixels of the frame.

Such files can be read without an error, but every network scores next to nothing on them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH

WITH_LANES = "give the file that has the lanes, such as label_data_0313.json or test_label.json"
IN_PIXELS = (
    f"x and h_samples are in pixels of an image {FRAME_WIDTH} wide and {FRAME_HEIGHT} high: "
    "multiply by that"
)
_TASKS = "as in TuSimple's list of frames to be tested, test_tasks_0627.json"


def without_lanes(labels: Sequence[Mapping[str, Any]]) -> str | None:
    """Describe a file's labels if no lane is seen in any of them; None if one is, or if there are other faults."""
    number = f"its {len(labels)} labels" if len(labels) > 1 else "its only label"
    if not labels or not all("raw_file" in label for label in labels):
        return None
    if not any("lanes" in label for label in labels):
        return f"no key lanes in {number}, {_TASKS}"
    every = [label.get("lanes") for label in labels]
    if all(lanes == [] for lanes in every):
        return f"lanes is empty in {number}, {_TASKS}"
    if all(map(_unseen, every)):
        return f"every x of {number} is negative: no lane is seen"
    return None


def _unseen(lanes: Any) -> bool:
    return isinstance(lanes, list) and all(
        isinstance(lane, list) and all(isinstance(x, int | float) and x < 0 for x in lane)
        for lane in lanes
    )


def in_fractions(*values: NDArray[np.float64]) -> bool:
    """Whether x or y, negative where a lane is not seen, are shares of the image and no pixels.

    Several that are all 1 at most: no lane runs within the first pixel's width.
    """
    seen = np.concatenate([np.empty(0), *(each[each >= 0] for each in values)])
    return len(seen) > 1 and bool(seen.max() <= 1)
