"""Images that are both trained on and measured on."""

import os
from collections.abc import Iterable
from functools import cache

from detprune.errors import listed
from detprune.loggers import logger

LOGGER = logger(__name__)


def tell_shared(training: Iterable[str], measured: Iterable[str], way_out: str) -> None:
    """Warn where a network is measured on images that it was trained on: the metric says nothing about new ones.

    Args:
        training: paths of the training images.
        measured: paths of the images that the metric is measured on.
        way_out: what to change.
    """
    measured, real = list(measured), cache(os.path.realpath)

    def place(image: str) -> str:  # thousands of images share a folder
        folder, name = os.path.split(image)
        return os.path.join(real(folder), name)

    trained_on = set(map(place, training))
    if shared := [image for image in measured if place(image) in trained_on]:
        LOGGER.warning(
            "%d of the %d images that are measured on are trained on too (%s), so that the metric is better than on "
            "new images; %s",
            *(len(shared), len(measured), listed(shared, 3), way_out),
        )
