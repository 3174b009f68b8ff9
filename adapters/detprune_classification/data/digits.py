"""scikit-learn's digits: 1,797 scans of handwritten digits, 8×8 grey, part of that package.

E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (its test set).
"""

import torch

from detprune.errors import InputError

from .base import (
    Augmentation,
    DataRequest,
    ImageData,
    Normalisation,
    TensorImages,
    balanced_subset,
    require_size,
)

SIZE = 8
# Pixels run from 0 to 16; mean and standard deviation over all scans after division by 16.
DIGITS = Normalisation((0.305,), (0.376,), full_scale=16.0)
_FOLD = 5


def build_digits(request: DataRequest) -> ImageData:
    """Build the digits as (1, 8, 8) images.

    The split is fixed: the third of every five consecutive scans of a class is a test scan, which
    makes 359, a fifth of each class. Raises `InputError` for a root, or an image size other than 8.
    """
    if request.root is not None:
        raise InputError(
            f"data.root is {str(request.root)!r}, but the digits come with scikit-learn; leave it out, or name another "
            "data set: data.name"
        )
    require_size("digits", request.image_size, SIZE)
    # Imported here, because it takes a second that users of other data need not wait for.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
    labels = [int(label) for label in bunch.target]
    seen = [0] * len(bunch.target_names)
    train: list[int] = []
    test: list[int] = []
    for index, label in enumerate(labels):
        (test if seen[label] % _FOLD == 2 else train).append(index)
        seen[label] += 1

    def part(
        indices: list[int], limit: int | None, augmentation: Augmentation | None
    ) -> TensorImages:
        own = [labels[index] for index in indices]
        chosen = [indices[place] for place in balanced_subset(own, limit, request.seed)]
        return TensorImages(images[chosen], [labels[i] for i in chosen], DIGITS, augmentation)

    # No mirroring: a mirrored digit is another digit or none.
    return ImageData(
        train=part(
            train, request.train_limit, Augmentation(1, flip=False) if request.augment else None
        ),
        test=part(test, request.test_limit, None),
        classes=tuple(str(name) for name in bunch.target_names),
        image_size=SIZE,
        channels=1,
    )
