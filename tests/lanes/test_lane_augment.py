import pickle

import numpy as np
import pytest
from lane_files import blotches

from detprune.errors import InputError
from detprune_lanes.data.augment import Augmentation, vary

DOTS = np.array([[200.5, 160.5], [1000, 250], [400, 500], [900, 600], [640, 360]])
SIZES = [(720, 1280), (450, 800), (180, 320)]


def dotted(point, size):
    """A black frame of some size with one bright disc, 12 pixels of the frame in radius."""
    y, x = np.mgrid[: size[0], : size[1]]
    scale = np.array([size[1] / 1280, size[0] / 720])
    frame_x, frame_y = (x + 0.5) / scale[0] - 0.5, (y + 0.5) / scale[1] - 0.5
    far = np.hypot(frame_x - point[0], frame_y - point[1])
    image = np.zeros((*size, 3), np.uint8)
    image[..., :] = (255 * np.clip((12 - far) / 4, 0, 1)).astype(np.uint8)[..., None]
    return image


def centre(image):
    """Centre of the brightness, in pixels of the frame."""
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    middle = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    return (middle + 0.5) * [1280 / image.shape[1], 720 / image.shape[0]] - 0.5


@pytest.mark.parametrize("size", SIZES)
def test_points_move_with_the_image(size):
    transform = Augmentation().transform()
    shifts = []
    for seed in range(12):
        point = DOTS[seed % len(DOTS)]
        image, (moved,) = vary(transform, dotted(point, size), [point[None]], seed)
        assert image.shape == (*size, 3)
        if (moved > 40).all() and (moved < [1240, 680]).all():
            np.testing.assert_allclose(centre(image), moved[0], atol=0.5)
            shifts.append(moved[0] - point)
    assert len(shifts) >= 8
    assert np.ptp(shifts, axis=0).min() > 50


def moved(augmentation, seeds, size=(180, 320)):
    """Where the five dots go, (seeds, 5, 2), and what is left of a white image."""
    transform = augmentation.transform()
    image = np.full((*size, 3), 255, np.uint8)
    results = [vary(transform, image, [DOTS], seed) for seed in seeds]
    return np.stack([points[0] for _, points in results]), [image for image, _ in results]


@pytest.mark.parametrize(
    ("augmentation", "largest"),
    [
        (Augmentation(rotate=0, shift_y=0, shift_x=200), [200, 0]),
        (Augmentation(rotate=0, shift_y=100, shift_x=0), [0, 100]),
        (Augmentation(rotate=0), [200, 100]),
    ],
)
def test_shifts_are_even_between_their_limits(augmentation, largest):
    points, _ = moved(augmentation, range(400))
    shift = points - DOTS
    assert np.ptp(shift, axis=1).max() < 1e-3  # all points alike
    shift, limit = shift[:, 0], np.array(largest)
    assert (np.abs(shift) <= limit + 1e-3).all()
    np.testing.assert_allclose(np.abs(shift).max(axis=0), limit, rtol=0.06)
    np.testing.assert_allclose(shift.std(axis=0), limit / np.sqrt(3), rtol=0.1)
    np.testing.assert_allclose(shift.mean(axis=0) / np.maximum(limit, 1), 0, atol=0.1)


def test_rotation_is_about_the_centre_and_even_between_its_limits():
    points, _ = moved(Augmentation(shift_y=0, shift_x=0), range(400))
    middle = np.array([639.5, 359.5])
    before, after = DOTS - middle, points - middle
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=-1),
        np.tile(np.linalg.norm(before, axis=-1), (400, 1)),
        atol=1e-2,
    )
    # The dot in the middle of the image has no angle to speak of.
    turned = np.arctan2(after[..., 1], after[..., 0]) - np.arctan2(before[:, 1], before[:, 0])
    angle = np.degrees((turned + np.pi) % (2 * np.pi) - np.pi)[:, :-1]
    assert np.ptp(angle, axis=1).max() < 0.01
    assert np.abs(angle).max() <= 6.01
    assert angle.min() < -5.8
    assert angle.max() > 5.8
    assert angle[:, 0].std() == pytest.approx(12 / np.sqrt(12), rel=0.1)


def test_black_comes_in_at_the_edges():
    points, images = moved(Augmentation(rotate=0), range(20))
    for shift, image in zip((points - DOTS)[:, 0], images, strict=True):
        columns, rows = (image.max(axis=(axis, 2)) > 0 for axis in (0, 1))
        assert (~columns).sum() == round(abs(shift[0]) / 4)
        assert (~rows).sum() == round(abs(shift[1]) / 4)
        if shift[0] >= 4:
            assert not columns[0]
            assert columns[-1]
        if shift[1] >= 4:
            assert not rows[0]
            assert rows[-1]


def test_the_seed_decides():
    image, transform = blotches(0, (180, 320)), Augmentation().transform()
    first = vary(transform, image, [DOTS, DOTS[:2]], 7)
    vary(transform, image, [DOTS], 8)
    again = vary(pickle.loads(pickle.dumps(transform)), image, [DOTS, DOTS[:2]], 7)
    other = vary(transform, image, [DOTS, DOTS[:2]], 8)
    assert np.array_equal(first[0], again[0])
    assert all(map(np.array_equal, first[1], again[1]))
    assert [len(points) for points in first[1]] == [5, 2]
    assert not np.array_equal(first[0], other[0])


def test_arguments_are_left_as_they_are():
    image, points = blotches(0, (180, 320)), [DOTS.copy()]
    kept = image.copy()
    vary(Augmentation().transform(), image, points, 1)
    assert np.array_equal(image, kept)
    assert np.array_equal(points[0], DOTS)


def test_no_variation_is_the_image_itself():
    image = blotches(0, (450, 800))
    same, (points,) = vary(Augmentation(0, 0, 0).transform(), image, [DOTS], 3)
    assert np.array_equal(same, image)
    np.testing.assert_allclose(points, DOTS, atol=1e-3)


def test_frames_without_lanes_are_varied_too():
    image, points = vary(
        Augmentation().transform(), blotches(0, (180, 320)), [np.empty((0, 2))] * 4, 0
    )
    assert [p.shape for p in points] == [(0, 2)] * 4
    assert image.shape == (180, 320, 3)


@pytest.mark.parametrize(
    ("name", "value", "high"),
    [
        ("rotate", -1, 90),
        ("rotate", 91, 90),
        ("shift_y", 721, 720),
        ("shift_x", float("nan"), 1280),
    ],
)
def test_values_out_of_range_are_refused(name, value, high):
    with pytest.raises(
        InputError, match=rf"augment.{name} is {value}; allowed is a number from 0 to {high}"
    ):
        Augmentation(**{name: value})
