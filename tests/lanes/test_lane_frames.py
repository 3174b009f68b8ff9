import os
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lane_files import ROWS, blotches, frame, straight, write_image
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from detprune.errors import InputError
from detprune_lanes.data import frames as frames_module
from detprune_lanes.data.augment import Augmentation
from detprune_lanes.data.frames import LaneFrames
from detprune_lanes.data.slots import slot_points
from detprune_lanes.data.targets import lane_targets, rasterise
from detprune_lanes.grid import Grid

SMALL = (96, 320)
LANES = [straight(250), straight(1000), straight(-900)]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    files = [write_image(folder / f"{n}.jpg", blotches(n)) for n in range(3)]
    return [frame(file, LANES[:n], n + 1) for n, file in enumerate(files)]


@pytest.mark.parametrize("size", [(288, 800), SMALL])
def test_an_item_is_what_the_original_makes_of_a_frame(labelled, size):
    original = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = LaneFrames(labelled, Grid(), size, segmentation=True)
    assert len(data) == 3
    for number, (image, target, segmentation) in enumerate(data):
        expected = original(Image.open(labelled[number].image))
        assert image.dtype == torch.float32
        assert image.is_contiguous()
        assert (image - expected).abs().max() < 1.01 / 255 / 0.224  # one grey level
        points = slot_points(labelled[number].lanes, ROWS)
        assert target.dtype == segmentation.dtype == torch.int64
        assert np.array_equal(target, lane_targets(points, Grid()))
        assert np.array_equal(segmentation, rasterise(points, size))


def test_without_segmentation_an_item_has_two_parts(labelled):
    image, target = LaneFrames(labelled, Grid(cells=50, rows=28), SMALL)[2]
    assert image.shape == (3, 96, 320)
    assert target.shape == (28, 4)
    assert target.max() == 50


@pytest.mark.parametrize("augment", [None, Augmentation()])
def test_stored_frames_give_the_same_items(labelled, tmp_path, augment):
    datasets = [
        LaneFrames(labelled, Grid(), SMALL, augment=augment, segmentation=True, cache=cache)
        for cache in (None, tmp_path / "cache", tmp_path / "cache")
    ]
    (file,) = (tmp_path / "cache").iterdir()
    stored = np.load(file, mmap_mode="r")
    assert stored.shape == (3, *((96, 320) if augment is None else (180, 320)), 3)
    assert stored.dtype == np.uint8
    for number in range(3):
        items = []
        for data in datasets:
            torch.manual_seed(number)
            items.append(data[number])
        assert all(
            torch.equal(a, b) for item in items[1:] for a, b in zip(items[0], item, strict=True)
        )


def test_stored_frames_are_read_and_not_decoded(labelled, tmp_path, monkeypatch):
    before = LaneFrames(labelled, Grid(), SMALL, cache=tmp_path)[1]
    monkeypatch.delattr(frames_module, "_decoded")
    after = LaneFrames(labelled, Grid(), SMALL, cache=tmp_path)[1]
    assert torch.equal(before[0], after[0])


def test_frames_are_told_apart_by_their_names(tmp_path):
    files = [write_image(tmp_path / f"{n}.bmp", blotches(n)) for n in range(2)]
    for file in files:
        os.utime(file, ns=(0, 0))
    assert files[0].stat().st_size == files[1].stat().st_size
    for file in files:
        data = LaneFrames([frame(file, [])], Grid(), SMALL, cache=tmp_path / "c")
        assert torch.equal(data[0][0], LaneFrames([frame(file, [])], Grid(), SMALL)[0][0])


def test_frames_of_another_kind_are_stored_anew(labelled, tmp_path):
    files = [write_image(tmp_path / f"{n}.png", blotches(n)) for n in range(2)]
    data = [frame(file, []) for file in files]

    def first_image(frames, size=SMALL, augment=None):
        return LaneFrames(frames, Grid(), size, augment=augment, cache=tmp_path / "c")._image(0)

    def count():
        return len(list((tmp_path / "c").iterdir()))

    assert np.array_equal(first_image(data), first_image(data))
    assert count() == 1
    assert not np.array_equal(first_image(data), first_image(data[::-1]))  # another order
    assert count() == 2
    first_image(data[:1])
    first_image(data, size=(64, 320))
    first_image(data, augment=Augmentation())
    assert count() == 5
    write_image(files[0], blotches(5))  # another image under the same name
    assert np.array_equal(first_image(data), LaneFrames(data, Grid(), SMALL)._image(0))
    assert count() == 6
    status = files[0].stat()
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    first_image(data)
    assert count() == 7


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("size", [(288, 800), SMALL])
def test_image_and_target_are_varied_alike(tmp_path, size, cached):
    lane = straight(900)
    image = np.zeros((720, 1280, 3), np.uint8)
    y, x = np.mgrid[:720, :1280]
    image[np.abs(x - (640 + (900 - 640) * (y - 240) / 480)) < 8] = 255
    image[:235] = 0
    data = LaneFrames(
        [frame(write_image(tmp_path / "0.png", image), [lane])],
        Grid(),
        size,
        augment=Augmentation(),
        cache=tmp_path / "c" if cached else None,
    )
    compared = 0
    for seed in range(10):
        torch.manual_seed(seed)
        varied, target = data[0]
        brightness = varied[0] - varied[0].min()
        for row, cell in enumerate(target[:, 2].tolist()):
            line = brightness[round((ROWS[row] + 0.5) * size[0] / 720 - 0.5)]
            if cell == 100 or line.max() < 3:  # below the image, where the lane is extended
                continue
            middle = (line * torch.arange(size[1])).sum() / line.sum()
            x = (float(middle) + 0.5) * 1280 / size[1] - 0.5
            if 20 < x < 1260:
                assert abs(x - (cell + 0.5) * 1279 / 99) < 1279 / 99 / 2 + 4
                compared += 1
    assert compared > 200


def test_an_epoch_is_decided_by_torch_s_seed(labelled):
    data = LaneFrames(labelled, Grid(), SMALL, augment=Augmentation(), segmentation=True)

    def epoch(seed):
        torch.manual_seed(seed)
        return [part for batch in DataLoader(data, batch_size=2) for part in batch]

    first, again, other = epoch(1), epoch(1), epoch(2)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(data[0][0], data[0][0])
    assert first[0].shape == (2, 3, 96, 320)
    assert first[2].shape == (2, 12, 40)


def test_reading_without_variation_draws_no_random_number(labelled):
    data = LaneFrames(labelled, Grid(), SMALL)
    state = torch.get_rng_state()
    assert torch.equal(data[0][0], data[0][0])
    assert torch.equal(torch.get_rng_state(), state)


def test_pickled_frames_are_small_and_the_same(labelled, tmp_path):
    data = LaneFrames(labelled, Grid(), SMALL, augment=Augmentation(), cache=tmp_path)
    torch.manual_seed(0)
    before = data[2]  # the file is open from here on
    pickled = pickle.dumps(data)
    assert len(pickled) < 30_000  # a stored image alone has 172,800 bytes
    torch.manual_seed(0)
    after = pickle.loads(pickled)[2]
    assert all(map(torch.equal, before, after))


BROKEN = {
    "no image": (
        b"no image",
        r"cannot decode the image .*x.jpg \(labels.json:7\); unpack it again",
    ),
    "empty": (b"", r"cannot decode the image .*x.jpg \(labels.json:7\)"),
    "missing": (None, r"cannot read the image .*x.jpg \(labels.json:7\): No such file"),
    "small": ((96, 320), r"x.jpg \(labels.json:7\) is 320x96; labels are in pixels of 1280x720"),
    "upright": ((1280, 720), r"x.jpg \(labels.json:7\) is 720x1280"),
    "cut": ("cut", r"cannot decode the image .*x.jpg \(labels.json:7\)"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("cached", [False, True])
def test_an_image_that_cannot_be_used_is_named(labelled, tmp_path, content, message, cached):
    file = tmp_path / "x.jpg"
    if isinstance(content, tuple):
        write_image(file, blotches(0, content))
    elif content is not None:
        whole = labelled[0].image.read_bytes()
        file.write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    frames = [labelled[0], frame(file, [], line=7)]
    with pytest.raises(InputError, match=message):
        LaneFrames(frames, Grid(), SMALL, cache=tmp_path / "c" if cached else None)[1]
    assert not cached or not list((tmp_path / "c").glob("*")) + list((tmp_path / "c").glob(".*"))


def test_images_that_cannot_be_stored_are_named_at_once(labelled, tmp_path):
    files = [tmp_path / f"{n}.jpg" for n in range(5)]
    for file in files:
        file.write_bytes(b"x")
    frames = [labelled[0], *(frame(file, [], n) for n, file in enumerate(files))]
    with pytest.raises(InputError, match="5 of 6 images cannot be used; the first are:") as caught:
        LaneFrames(frames, Grid(), SMALL, cache=tmp_path / "c")
    assert str(caught.value).count("\n- cannot decode the image") == 3


def test_a_full_disk_is_found_before_writing(labelled, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"need 0.0 GB in .*make room, use fewer frames"):
        LaneFrames(labelled, Grid(), SMALL, cache=tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(labelled, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"cannot write decoded frames into .*switch the cache off"
    ):
        LaneFrames(labelled, Grid(), SMALL, cache=tmp_path / "file" / "c")


def test_no_frames_are_an_error():
    with pytest.raises(InputError, match="there are no frames"):
        LaneFrames([], Grid())


def unusable(file):
    np.save(file, np.array([{"a": print}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    "spoil",
    [
        unusable,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no array"),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: np.save(file, np.zeros((3, 4))),
    ],
    ids=["objects", "empty", "text", "cut off", "other"],
)
def test_a_store_that_holds_something_else_is_written_anew(labelled, tmp_path, spoil, caplog):
    before = LaneFrames(labelled, Grid(), SMALL, cache=tmp_path)[1][0]
    (file,) = tmp_path.iterdir()
    spoil(file)
    after = LaneFrames(labelled, Grid(), SMALL, cache=tmp_path)[1][0]
    assert torch.equal(before, after)
    assert f"{file} does not hold the decoded frames" in caplog.text
