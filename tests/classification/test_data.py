"""The data sets by name: splits, limits, augmentation, CIFAR-10's files, refusals."""

import hashlib
import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_helpers import everything, refused
from PIL import Image
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10

from detprune.errors import InputError
from detprune_classification.data import DATA_SETS, build_data, images_facts
from detprune_classification.data.base import (
    IMAGENET,
    Augmentation,
    Normalisation,
    TensorImages,
    balanced_subset,
)
from detprune_classification.listing import list_data


class TestRegistry:
    def test_names_and_lines(self) -> None:
        assert set(DATA_SETS) == set(list_data()) == {"digits", "cifar10", "image_folder"}
        assert all(line and "\n" not in line for line in list_data().values())

    def test_an_unknown_name_is_refused_with_the_nearest(self) -> None:
        text = refused("unknown data set 'cifar-10' (did you mean 'cifar10'?)", "cifar-10")
        assert text.endswith("known: cifar10, digits, image_folder")

    @pytest.mark.parametrize("argument", ["train_limit", "test_limit"])
    @pytest.mark.parametrize("limit", [0, -3])
    def test_a_limit_below_1_is_refused(self, argument: str, limit: int) -> None:
        refused(f"{argument} is {limit}; it must be 1 or more", "digits", **{argument: limit})

    @pytest.mark.parametrize(("name", "own"), [("digits", 8), ("cifar10", 32)])
    def test_a_fixed_size_is_kept(self, name: str, own: int) -> None:
        text = refused("image_size is 16, but the images of data set", name, image_size=16)
        assert f"are {own}×{own}; leave image_size out or set it to {own}" in text


class TestDigits:
    def test_the_split_covers_all_scans_once_a_fifth_of_each_class_for_testing(self) -> None:
        data = build_data("digits", augment=False)
        train, train_labels = everything(data.train)
        test, test_labels = everything(data.test)
        assert (data.image_size, data.channels) == (8, 1)
        assert data.classes == tuple("0123456789")
        assert (train.shape, test.shape) == ((1438, 1, 8, 8), (359, 1, 8, 8))
        assert train.dtype == torch.float32
        bunch = load_digits()
        together = Counter(
            (label, tuple(row))
            for label, row in zip(
                train_labels + test_labels,
                ((torch.cat([train, test]) * 0.376 + 0.305) * 16).round().flatten(1).int().tolist(),
                strict=True,
            )
        )
        assert together == Counter(
            (int(label), tuple(int(v) for v in row))
            for label, row in zip(bunch.target, bunch.data, strict=True)
        )
        for label, count in Counter(test_labels).items():
            assert abs(count - 0.2 * (bunch.target == label).sum()) <= 1

    def test_the_split_depends_on_no_seed_and_draws_nothing(self) -> None:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        first = build_data("digits", augment=False, seed=0)
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(4)
        second = build_data("digits", augment=False, seed=1)
        assert torch.equal(everything(first.train)[0], everything(second.train)[0])
        assert torch.equal(everything(first.test)[0], everything(second.test)[0])

    def test_the_first_test_scan_is_the_third_zero(self) -> None:
        bunch = load_digits()
        index = int(np.flatnonzero(bunch.target == 0)[2])
        image, label = everything(build_data("digits", test_limit=None).test)
        place = label.index(0)
        expected = (torch.tensor(bunch.images[index]) / 16 - 0.305) / 0.376
        torch.testing.assert_close(image[place, 0], expected.float())

    def test_the_scale_is_about_standard(self) -> None:
        images, _ = everything(build_data("digits", augment=False).train)
        assert abs(images.mean().item()) < 0.02
        assert abs(images.std().item() - 1) < 0.02

    def test_seeding_makes_the_augmented_epoch_exact(self) -> None:
        train = build_data("digits", train_limit=50).train
        epochs = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            epochs.append(torch.cat([x for x, _ in DataLoader(train, 16, shuffle=True)]))
        assert torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[0], epochs[2])

    def test_the_test_part_is_never_augmented(self) -> None:
        test = build_data("digits", augment=True, test_limit=30).test
        assert torch.equal(everything(test)[0], everything(test)[0])


class TestLimits:
    @pytest.mark.parametrize("limit", [10, 23, 7, 1])
    def test_a_limit_is_exact_and_balanced(self, limit: int) -> None:
        data = build_data("digits", train_limit=limit, test_limit=limit)
        for part in (data.train, data.test):
            _, labels = everything(part)
            counts = [labels.count(label) for label in range(10)]
            assert len(labels) == limit
            assert max(counts) - min(counts) <= 1

    def test_a_limit_beyond_the_data_takes_all(self) -> None:
        assert len(everything(build_data("digits", test_limit=10_000).test)[1]) == 359

    def test_the_subset_is_a_function_of_seed_and_limit(self) -> None:
        torch.manual_seed(0)
        first = everything(build_data("digits", train_limit=40, augment=False, seed=5).train)
        torch.manual_seed(1)
        again = everything(build_data("digits", train_limit=40, augment=False, seed=5).train)
        other = everything(build_data("digits", train_limit=40, augment=False, seed=6).train)
        assert torch.equal(first[0], again[0])
        assert first[1] == again[1]
        assert not torch.equal(first[0], other[0])

    def test_smaller_subsets_lie_within_larger(self) -> None:
        labels = [0, 1, 2] * 20
        subsets = [set(balanced_subset(labels, limit, seed=2)) for limit in range(1, 61)]
        assert [len(subset) for subset in subsets] == list(range(1, 61))
        assert all(a < b for a, b in pairwise(subsets))

    def test_a_class_that_runs_out_leaves_its_place_to_the_others(self) -> None:
        labels = [0] + [1] * 10 + [2] * 10
        chosen = balanced_subset(labels, 9, seed=0)
        assert Counter(labels[i] for i in chosen) == {0: 1, 1: 4, 2: 4}
        assert chosen == sorted(set(chosen))


class TestAugmentation:
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("batch", [1, 1000])
    def test_exactly_the_shifts_and_mirrors_occur(self, flip: bool, batch: int) -> None:
        image = torch.arange(1, 3 * 16 + 1, dtype=torch.uint8).view(1, 3, 4, 4)
        padded = functional.pad(image[0], (1, 1, 1, 1))
        shifts = [padded[:, y : y + 4, x : x + 4] for y in range(3) for x in range(3)]
        expected = shifts + [shift.flip(2) for shift in shifts] if flip else shifts
        identity = Normalisation((0.0,) * 3, (1.0,) * 3, full_scale=1.0)
        dataset = TensorImages(image, [0], identity, Augmentation(1, flip))
        torch.manual_seed(0)
        samples = [s for _ in range(1000 // batch) for s in dataset.__getitems__([0] * batch)]
        seen = Counter(tuple(sample.flatten().tolist()) for sample, _ in samples)
        assert set(seen) == {tuple(x.flatten().float().tolist()) for x in expected}
        # Uniform: each of the 9 or 18 outcomes within 5 standard deviations of its expectation.
        p = 1 / len(expected)
        assert all(abs(n - 1000 * p) < 5 * (1000 * p * (1 - p)) ** 0.5 for n in seen.values())

    def test_samples_asked_for_together_are_those_asked_for_alone(self) -> None:
        images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
        dataset = TensorImages(images, [5, 6, 7, 8], IMAGENET)
        for index, (image, label) in zip((3, 0, 0), dataset.__getitems__([3, 0, 0]), strict=True):
            assert torch.equal(image, dataset[index][0])
            assert label == dataset[index][1] == 5 + index

    def test_the_stored_images_stay_as_they_are(self) -> None:
        images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
        before = images.clone()
        everything(TensorImages(images, [0, 1, 2, 3], IMAGENET, Augmentation(2, flip=True)))
        everything(TensorImages(images, [0, 1, 2, 3], IMAGENET))
        assert torch.equal(images, before)


class TestCifar10:
    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A CIFAR-10 of 20 training and 10 test images in the original files' format."""
        generator = np.random.default_rng(0)
        folder = tmp_path / CIFAR10.base_folder
        folder.mkdir()

        def write(name: str, content: dict[str, Any]) -> tuple[str, str]:
            raw = pickle.dumps(content)
            (folder / name).write_bytes(raw)
            return name, hashlib.md5(raw).hexdigest()

        def batch(name: str, labels: list[int]) -> tuple[str, str]:
            pixels = generator.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
            return write(name, {"data": pixels, "labels": labels})

        train = [batch(f"data_batch_{i}", [2 * i - 2, 2 * i - 1] * 2) for i in range(1, 6)]
        test = [batch("test_batch", list(range(10)))]
        names = [f"class{i}" for i in range(10)]
        _, checksum = write("batches.meta", {"label_names": names})
        monkeypatch.setattr(CIFAR10, "train_list", train)
        monkeypatch.setattr(CIFAR10, "test_list", test)
        monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": checksum})
        return tmp_path

    def test_shapes_labels_and_normalisation(self, root: Path) -> None:
        data = build_data("cifar10", root, augment=False)
        images, labels = everything(data.train)
        assert images.shape == (20, 3, 32, 32)
        assert labels == [label for i in range(5) for label in (2 * i, 2 * i + 1) * 2]
        assert everything(data.test)[1] == list(range(10))
        assert data.classes == tuple(f"class{i}" for i in range(10))
        assert (data.image_size, data.channels) == (32, 3)
        raw = pickle.loads((root / CIFAR10.base_folder / "data_batch_1").read_bytes())["data"]
        pixels = torch.from_numpy(raw[1]).view(3, 32, 32) / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
        torch.testing.assert_close(images[1], (pixels - mean) / std)

    def test_training_shifts_by_up_to_4_and_mirrors(self, root: Path) -> None:
        plain, _ = build_data("cifar10", root, augment=False).train[0]
        train = build_data("cifar10", root).train
        black = (-torch.tensor(IMAGENET.mean) / torch.tensor(IMAGENET.std)).view(3, 1, 1)
        padded = functional.pad(plain - black, (4, 4, 4, 4)) + black
        crops = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        candidates = torch.stack([*crops, *(crop.flip(2) for crop in crops)])
        torch.manual_seed(0)
        seen = set()
        for _ in range(150):
            near = (candidates - train[0][0]).abs().amax((1, 2, 3)) < 1e-5
            assert near.sum() == 1
            seen.add(int(near.nonzero()))
        places = {place % 81 for place in seen}
        assert {place // 9 for place in places} == {place % 9 for place in places} == set(range(9))
        assert {place // 81 for place in seen} == {0, 1}

    def test_limits(self, root: Path) -> None:
        data = build_data("cifar10", root, train_limit=10, test_limit=5)
        assert sorted(everything(data.train)[1]) == list(range(10))
        assert len(everything(data.test)[1]) == 5

    def test_missing_files_are_named_with_what_is_expected_where(self, root: Path) -> None:
        folder = root / CIFAR10.base_folder
        (folder / "data_batch_2").unlink()
        (folder / "batches.meta").unlink()
        text = refused("lacks data_batch_2, batches.meta in", "cifar10", root=root)
        assert repr(str(folder)) in text
        assert "expected root/cifar-10-batches-py/ with data_batch_1 to data_batch_5" in text
        assert "unpack cifar-10-python.tar.gz" in text
        assert "nothing is downloaded at run time" in text

    def test_a_damaged_file_is_refused_unopened(self, root: Path) -> None:
        (root / CIFAR10.base_folder / "test_batch").write_bytes(b"cos\nsystem\n")
        refused("is damaged: a checksum differs, of test_batch; unpack", "cifar10", root=root)
        whole = (root / CIFAR10.base_folder / "data_batch_3").read_bytes()
        (root / CIFAR10.base_folder / "data_batch_3").write_bytes(whole[: len(whole) // 2])
        refused("a checksum differs, of data_batch_3, test_batch; unpack", "cifar10", root=root)

    def test_a_missing_root_is_refused_with_the_layout(self, tmp_path: Path) -> None:
        layout = "expected root/cifar-10-batches-py/"
        assert layout in refused("data set 'cifar10' needs a root folder", "cifar10")
        none = tmp_path / "none"
        assert layout in refused(f"root {str(none)!r} of data set", "cifar10", root=none)


def test_images_of_one_size_in_bytes_are_told_apart(tmp_path: Path) -> None:
    def facts(shade: int) -> dict[str, str]:
        for part in ("train", "test"):
            for name in ("a", "b"):
                (tmp_path / part / name).mkdir(parents=True, exist_ok=True)
                Image.new("L", (96, 96), shade).save(tmp_path / part / name / "0.bmp")
        return images_facts("test images", build_data("image_folder", tmp_path, 96).test)

    grey, black = facts(100), facts(0)
    assert grey["test images"] == black["test images"]
    assert grey["test images' pixels"] != black["test images' pixels"]
    assert facts(100) == grey


def test_digits_take_no_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root is .*; leave it out"):
        build_data("digits", tmp_path)
