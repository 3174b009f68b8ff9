"""Image folders: decoding, scaling, augmentation, limits, and every refusal."""

import io
import os
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from data_helpers import everything, refused
from PIL import Image
from torch import Tensor

from damaged import forbid_listing
from detprune.errors import InputError
from detprune.run.directory import RunDirectory
from detprune.run.recipe import validate
from detprune_classification.data import build_data
from detprune_classification.data.base import IMAGENET, Augmentation, TensorImages, balanced_subset
from detprune_classification.data.image_folder import load_rgb
from detprune_classification.recipe import ClassificationRecipe
from detprune_classification.task import ClassificationTask
from detprune_lightning.training import PlainErrorsLoader

COLOURS = {"blue": (20, 40, 220), "green": (10, 200, 30), "red": (230, 20, 10)}


def normalised(colour: tuple[int, ...]) -> Tensor:
    mean, std = torch.tensor(IMAGENET.mean), torch.tensor(IMAGENET.std)
    return ((torch.tensor(colour) / 255 - mean) / std).view(3, 1, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plain-coloured JPEGs, 48×40, the class being the colour: 6 train, 3 test each."""
    for part, count in (("train", 6), ("test", 3)):
        for name, colour in COLOURS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                image = Image.new("RGB", (48, 40), colour)
                image.save(tmp_path / part / name / f"{i}.jpg", quality=100, subsampling=0)
    return tmp_path


@pytest.mark.parametrize("size", [32, 40, 96])
def test_shapes_labels_and_normalisation(folder: Path, size: int) -> None:
    data = build_data("image_folder", folder, size, augment=False)
    assert data.classes == ("blue", "green", "red")
    assert (data.image_size, data.channels) == (size, 3)
    for part, count in ((data.train, 18), (data.test, 9)):
        images, labels = everything(part)
        assert images.shape == (count, 3, size, size)
        assert (images.dtype, type(images)) == (torch.float32, Tensor)
        assert Counter(labels) == dict.fromkeys(range(3), count // 3)
        for image, label in zip(images, labels, strict=True):
            expected = normalised(COLOURS[data.classes[label]]).expand_as(image)
            # JPEG keeps a plain colour to within two or three grey levels.
            torch.testing.assert_close(image, expected, atol=0.06, rtol=0)


def test_the_default_size_is_224(folder: Path) -> None:
    data = build_data("image_folder", folder, test_limit=1)
    assert data.image_size == 224
    assert everything(data.test)[0].shape == (1, 3, 224, 224)


@pytest.mark.parametrize("size", [32, 96])
def test_a_scaled_image_keeps_its_centre_and_proportions(tmp_path: Path, size: int) -> None:
    # A green centred square half as high as the image, red at the left and right ends.
    picture = np.full((128, 256, 3), 128, dtype=np.uint8)
    picture[32:96, 96:160] = (0, 255, 0)
    picture[:, :32] = picture[:, -32:] = (255, 0, 0)
    for part, name in product(("train", "test"), "ab"):
        (tmp_path / part / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / part / name / "x.png")
    image, _ = build_data("image_folder", tmp_path, size, augment=False).test[0]
    green = (image - normalised((0, 255, 0))).abs().amax(0) < 0.1
    # Above 64 pixels, 224 of 256 pixels are kept, which makes the square larger.
    side = size / 2 if size <= 64 else size / 2 * 256 / 224
    assert abs(green.sum().item() ** 0.5 - side) < 2.5
    assert green[size // 2, size // 2]
    red = (image - normalised((255, 0, 0))).abs().amax(0) < 0.5
    assert not red.any()


@pytest.mark.parametrize("size", [32, 96])
def test_seeding_makes_augmentation_exact(tmp_path: Path, size: int) -> None:
    generator = np.random.default_rng(0)
    for part, name in product(("train", "test"), "ab"):
        (tmp_path / part / name).mkdir(parents=True)
        for i in range(2):
            noise = generator.integers(0, 256, (50, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / part / name / f"{i}.jpg")
    data = build_data("image_folder", tmp_path, size)
    passes = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        passes.append(everything(data.train)[0])
    assert torch.equal(passes[0], passes[1])
    assert not torch.equal(passes[0], passes[2])
    assert torch.equal(everything(data.test)[0], everything(data.test)[0])
    plain = build_data("image_folder", tmp_path, size, augment=False)
    assert torch.equal(everything(plain.train)[0], everything(plain.train)[0])


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (64, 8)])
def test_small_images_shift_by_an_eighth(folder: Path, size: int, pad: int) -> None:
    train = build_data("image_folder", folder, size).train
    assert isinstance(train, TensorImages)
    assert train.augmentation == Augmentation(pad, flip=True)


def test_val_stands_in_for_test_and_yields_to_it(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    assert len(everything(build_data("image_folder", folder, 32).test)[1]) == 9
    for name in COLOURS:
        (folder / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "test" / name / "0.png")
    assert len(everything(build_data("image_folder", folder, 32).test)[1]) == 3


def test_root_may_be_a_string(folder: Path) -> None:
    assert len(everything(build_data("image_folder", str(folder), 32).test)[1]) == 9


@pytest.mark.parametrize("size", [32, 96])
def test_limits_are_balanced(folder: Path, size: int) -> None:
    data = build_data("image_folder", folder, size, train_limit=7, test_limit=3)
    assert sorted(Counter(everything(data.train)[1]).values()) == [2, 2, 3]
    assert Counter(everything(data.test)[1]) == {0: 1, 1: 1, 2: 1}


def test_images_beyond_a_limit_are_not_decoded(folder: Path) -> None:
    paths = sorted((folder / "train" / "red").iterdir())
    chosen = set(balanced_subset([0] * 6 + [1] * 6 + [2] * 6, 3, seed=0))
    spare = next(path for i, path in enumerate(paths) if 12 + i not in chosen)
    spare.write_bytes(b"no image")
    build_data("image_folder", folder, 32, train_limit=3)
    refused(str(spare), root=folder, image_size=32)


def test_a_missing_root_is_refused_with_the_layout(tmp_path: Path) -> None:
    layout = "expected root/train/<class>/<images> and root/test/<class>/<images> (or val"
    assert layout in refused("data set 'image_folder' needs a root folder", root=None)
    missing = tmp_path / "none"
    assert layout in refused(f"root {str(missing)!r} of data set", root=missing)
    assert layout in refused(f"no folder {str(tmp_path / 'train')!r}", root=tmp_path)


def test_a_missing_test_folder_is_refused(folder: Path) -> None:
    (folder / "test").rename(folder / "tset")
    refused(f"no folder {str(folder / 'test')!r}", root=folder)


def test_no_class_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    refused(f"no class folder in {str(tmp_path / 'train')!r}", root=tmp_path)


def test_an_empty_class_is_refused(folder: Path) -> None:
    for path in (folder / "train" / "green").iterdir():
        path.rename(path.with_suffix(".txt"))
    text = refused("no image in 1 of 3 class folders of", root=folder)
    assert f"{str(folder / 'train')!r}: green; image files end in .jpg, .jpeg" in text


def test_differing_classes_are_listed(folder: Path) -> None:
    (folder / "test" / "red").rename(folder / "test" / "rde")
    refused(
        "the class folders of train and test differ (only in train: red; only in test: rde)",
        root=folder,
    )


def test_a_single_class_is_refused(folder: Path) -> None:
    for part in ("train", "test"):
        for other in ("green", "blue"):
            shutil.rmtree(folder / part / other)
    refused("train holds one class alone, 'red', and a classifier tells two or more", root=folder)


def test_a_size_below_8_is_refused(folder: Path) -> None:
    refused("image_size is 4; it must be 8 or more", root=folder, image_size=4)


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_corrupt_image_is_named(folder: Path, damage: str, suffix: str) -> None:
    path = folder / "train" / "green" / f"bad{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    contents = {"garbage": b"no image" * 9, "truncated": whole[: len(whole) // 2], "empty": b""}
    path.write_bytes(contents[damage])
    refused(f"image {str(path)!r} cannot be decoded", root=folder, image_size=32)
    if damage == "empty":
        refused(f"image {str(path)!r} cannot be decoded (it is empty)", root=folder, image_size=96)
        return
    # Large images are read when asked for, so that is when the file is named.
    data = build_data("image_folder", folder, 96)
    with pytest.raises(InputError, match="cannot be decoded") as caught:
        everything(data.train)
    assert str(path) in str(caught.value)


def broken_png() -> bytes:
    """Return a PNG whose pixel data stop half-way, followed by a chunk of no valid name."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    whole = buffer.getvalue()
    start = whole.index(b"IDAT")
    half = int.from_bytes(whole[start - 4 : start]) // 2
    data = whole[start : start + 4 + half]
    return whole[: start - 4] + half.to_bytes(4) + data + bytes(4) + b"\0\0\0\x09\x85\xe2\xb8j"


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("x.png", broken_png(), SyntaxError),
        ("x.ppm", b"P6 40 forty 255\n" + bytes(4800), ValueError),
        ("x.bmp", b"BM" + bytes(8) + b"\x36\0\0\0\x28\0\0\0" + b"\x60\xea\0\0" * 2
         + b"\x01\0\x18" + bytes(25), Image.DecompressionBombError),
    ],
)  # fmt: skip
def test_what_pil_raises_for_damage_becomes_one_error(
    tmp_path: Path, name: str, content: bytes, cause: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}' cannot be decoded") as caught:
        load_rgb(str(tmp_path / name))
    assert type(caught.value.__cause__) is cause


def test_a_worker_process_names_the_corrupt_image_too(folder: Path) -> None:
    path = folder / "train" / "blue" / "bad.jpg"
    path.write_bytes(b"no image")
    data = build_data("image_folder", folder, 96)
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"bad\.jpg' cannot be decoded") as caught:
            list(PlainErrorsLoader(data.train, 8, num_workers=workers))
        assert "Traceback" not in str(caught.value)
        assert str(caught.value).startswith("image ")


@pytest.mark.parametrize(("suffix", "mode"), [("png", "I;16"), ("tiff", "I;16"), ("tif", "I;16B")])
def test_16_bit_grey_is_scaled_from_its_whole_range(tmp_path: Path, suffix: str, mode: str) -> None:
    grey = np.array(
        [[0, 257 * 100], [257 * 200, 65535]], dtype=">u2" if mode.endswith("B") else "<u2"
    )
    file = tmp_path / f"image.{suffix}"
    Image.fromarray(grey).save(file)
    expected = np.repeat(np.array([[0, 100], [200, 255]], np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(np.asarray(load_rgb(str(file))), expected)


def test_pgm_of_16_bits_is_scaled_too(tmp_path: Path) -> None:
    file = tmp_path / "image.pgm"
    for white in (65535, 1023):
        grey = np.rint(np.array([0, 100 / 255, 1]) * white).astype(">u2")
        file.write_bytes(b"P5 3 1 %d\n" % white + grey.tobytes())
        assert np.asarray(load_rgb(str(file)))[0, :, 0].tolist() == [0, 100, 255]


def test_16_bit_grey_of_tiff_whose_white_is_0_is_inverted(tmp_path: Path) -> None:
    file = tmp_path / "image.tiff"
    Image.fromarray(np.array([[0, 257 * 100, 65535]], "<u2")).save(file, tiffinfo={262: 0})
    with Image.open(file) as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    assert np.asarray(load_rgb(str(file)))[0, :, 0].tolist() == [255, 155, 0]


@pytest.mark.parametrize(
    ("dtype", "text"),
    [("int16", "signed or"), ("int32", "signed or 32-bit integers"), ("float32", "floating-")],
)
def test_numbers_of_unknown_range_are_refused(tmp_path: Path, dtype: str, text: str) -> None:
    file = tmp_path / "image.tiff"
    image = Image.fromarray(np.ones((2, 2), dtype.replace("int16", "uint16")))
    image.save(file, tiffinfo={339: 2} if dtype == "int16" else {})  # SampleFormat: signed
    with pytest.raises(InputError, match=rf"image\.tiff' holds {text}.* 16 bits without a sign"):
        load_rgb(str(file))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "image.tiff"
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(file)
    image = load_rgb(str(file))
    assert image.mode == "RGB"
    assert np.asarray(image).min() >= 254


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to(path.with_name("away.png")), "No such file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (Path.touch, "it is empty"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
    ],
)
def test_what_is_no_image_file_is_found_before_training(
    folder: Path, make: Callable[[Path], object], text: str
) -> None:
    make(next((folder / "train").iterdir()) / "odd.png")
    with pytest.raises(InputError, match=rf"odd\.png' .*{text}"):
        build_data("image_folder", root=folder, image_size=128)


def test_a_class_that_is_a_broken_link_is_named(folder: Path) -> None:
    for split in ("train", "test"):  # as where a disk is not mounted
        (folder / split / "on_another_disk").symlink_to("/nowhere")
    refused("on_another_disk' is a link that leads nowhere", root=folder)


@pytest.mark.parametrize("target", [".", ".."])
def test_a_link_within_the_images_counts_no_image_twice(folder: Path, target: str) -> None:
    """``ln -s`` called again for a link that is there leaves one inside; images then count forty times."""
    inside = next(entry for entry in (folder / "train").iterdir() if entry.is_dir())
    (inside / "again").symlink_to(target)
    refused("leads to a folder whose images are counted already", root=folder)


def test_no_image_is_run_by_ghostscript(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS is a program; Pillow gives it to Ghostscript under any name."""

    def ghostscript(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", ghostscript)
    file = next(f for f in (folder / "train").rglob("*") if f.is_file())
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"cannot be decoded \(cannot identify"):
        load_rgb(str(file))


@pytest.mark.parametrize("place", ["red/@eaDir/0.jpg", "red/.@__thumb", ".trash", "red/#recycle"])
def test_images_in_folders_of_the_system_are_refused(folder: Path, place: str) -> None:
    thumbnail = folder / "train" / place / "small.jpg"
    thumbnail.parent.mkdir(parents=True)
    Image.new("RGB", (12, 10)).save(thumbnail)
    said = "images in hidden folders, or in folders that a storage makes for thumbnails or deleted files (1): "
    refused(f"{said}{thumbnail}; remove these folders", root=folder, image_size=32)


def test_images_that_are_left_out_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    build_data("image_folder", folder, 32)
    assert not caplog.records
    image = Image.new("RGB", (48, 40))
    image.save(folder / "train" / "red" / "moving.gif")
    image.save(folder / "train" / "beside.jpg")
    (folder / "train" / "red" / "notes.txt").touch()
    build_data("image_folder", folder, 32)
    assert len(caplog.messages) == 1
    assert "2 images of" in caplog.text
    assert "beside.jpg" in caplog.text
    assert ".webp" in caplog.text


def test_a_network_of_one_size_alone_is_refused_before_training(folder: Path) -> None:
    recipe = {
        "task": "classification",
        "name": "sizes",
        "model": {"name": "vit_b_32"},
        "data": {"name": "image_folder", "root": str(folder), "image_size": 64},
        "method": "oneshot",
        "budget": {"compression": 2},
        "stages": {name: {"epochs": 0} for name in ("dense", "constrained", "retrain")},
    }
    task = ClassificationTask(validate(ClassificationRecipe, recipe), RunDirectory(folder / "run"))
    with pytest.raises(InputError, match=r"images of 224 px alone.*set data.image_size to 224"):
        task.build_model()


@pytest.mark.parametrize("place", ["green", "green/more"])
def test_a_folder_that_may_not_be_listed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (folder / "train/green/more").mkdir()
    forbid_listing(monkeypatch, folder / "train" / place)
    with pytest.raises(InputError, match=rf"{place}' may not be listed .*; give the permission"):
        build_data("image_folder", folder, 32)


@pytest.mark.parametrize(("bits", "factor"), [(10, 64), (12, 16), (16, None)])
def test_16_bit_images_of_a_camera_of_fewer_bits_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: int, factor: int | None
) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            values = np.full((16, 16), 2**bits - 1, dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / part / name / "0.png")
    build_data("image_folder", tmp_path, 32)
    said = [r.getMessage() for r in caplog.records if "nearly black" in r.getMessage()]
    assert len(said) == (factor is not None)
    assert factor is None or said[0].endswith(f"multiplied by {factor}")


@pytest.mark.parametrize(("bits", "factor"), [(8, None), (10, 64), (12, 16), (16, None)])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_of_a_camera_of_fewer_bits_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: int, factor: int | None, channels: int
) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            values = np.full((16, 16, channels), 2**bits - 1, dtype=f"uint{8 if bits == 8 else 16}")
            assert cv2.imwrite(str(tmp_path / part / name / "0.png"), values)
    build_data("image_folder", tmp_path, 32)
    said = [r.getMessage() for r in caplog.records if "nearly black" in r.getMessage()]
    assert len(said) == (factor is not None)
    assert factor is None or said[0].endswith(f"multiplied by {factor}")


def test_a_tiff_file_that_says_its_bits_is_not_called_dark(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            image = Image.fromarray(np.full((16, 16), 4095, dtype=np.uint16))
            file = tmp_path / part / name / "0.tif"
            image.save(file)
            bits = b"\2\1\3\0\1\0\0\0"  # BitsPerSample: one short, whose value follows
            assert bits + b"\x10" in file.read_bytes()
            file.write_bytes(file.read_bytes().replace(bits + b"\x10", bits + b"\x0c"))
            assert np.asarray(Image.open(file)).max() == 4095
    build_data("image_folder", tmp_path, 32)
    assert not [r for r in caplog.records if "nearly black" in r.getMessage()]


def test_images_that_are_trained_on_and_measured_on_are_told(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_data("image_folder", folder, 32, augment=False)
    assert "trained on too" not in caplog.text
    (folder / "test").rename(folder / "other")
    (folder / "test").symlink_to("train")
    build_data("image_folder", folder, 32, augment=False)
    assert "18 of the 18 images that are measured on are trained on too" in caplog.text
