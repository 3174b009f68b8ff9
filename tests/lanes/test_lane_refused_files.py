"""Files that no lane network can be loaded from: what is said about them."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lane_networks import assert_equal, hollow, network, prefixed
from torchvision import models

from detprune.errors import InputError
from detprune_lanes.grid import Grid
from detprune_lanes.network.checkpoints import describe, load_checkpoint, read_checkpoint
from detprune_lanes.network.model import LaneNetwork


@pytest.fixture(scope="module")
def target() -> LaneNetwork:
    return network()


@pytest.fixture(scope="module")
def auxiliary_target() -> LaneNetwork:
    return network(use_aux=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ep099.pth"


def refused(model: LaneNetwork, path: Path) -> str:
    """The text of the refusal, having checked that it left the network as it was."""
    before = {n: v.clone() for n, v in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_checkpoint(model, path)
    assert_equal(model.state_dict(), before)
    assert str(path) in str(caught.value)
    return str(caught.value)


HEAD = "\n  network: trunk 18, 352 outputs (10 cells × 8 rows × 4 lanes), size 64 × 96\n"


@pytest.mark.parametrize(
    ("other", "architecture", "problem"),
    [
        (
            {"grid": Grid(cells=100, rows=56)},
            "trunk 18, 22,624 outputs (100 cells × 56 rows × 4 lanes as for TuSimple), 48 pooled "
            "features (as of 64 × 96 images), without",
            "2 of another shape: cls.2.weight (22624, 2048) in the file, (352, 2048) in the network",
        ),
        (
            {"grid": Grid(cells=200, rows=18)},
            "trunk 18, 14,472 outputs (200 cells × 18 rows × 4 lanes as for CULane), 48 ",
            "2 of another shape: cls.2.weight",
        ),
        (
            {"size": (288, 800)},
            "trunk 18, 352 outputs ((cells + 1) · rows · lanes), 1,800 pooled features "
            "(as of 288 × 800 images), without auxiliary branch",
            "1 of another shape: cls.0.weight (2048, 1800) in the file, (2048, 48) in the network",
        ),
        ({"trunk": "34"}, "trunk 34, 352 outputs", "96 unknown to the network: model.layer1.2."),
        ({"trunk": "50"}, "trunk 50, 352 outputs", "of another shape: model.layer1.0.conv1.weight"),
        ({"trunk": "50", "use_aux": True}, "trunk 50, 352 outputs", " with auxiliary branch\n"),
    ],
)
def test_another_network_is_named(
    target: LaneNetwork, path: Path, other: dict[str, Any], architecture: str, problem: str
) -> None:
    torch.save({"model": hollow(**other)}, path)
    text = refused(target, path)
    assert f"  file: {architecture}" in text
    assert HEAD in text
    assert problem in text
    assert text.endswith(
        "build the network that the file belongs to (trunk, grid and size), or give another file"
    )


def test_parts_that_are_missing_or_unknown(auxiliary_target: LaneNetwork, path: Path) -> None:
    state = hollow(use_aux=True)
    del state["model.layer4.1.conv2.weight"], state["aux_header3.2.conv.weight"]
    state |= {f"extra.{number}": torch.zeros(1) for number in range(5)}
    torch.save({"model": state}, path)
    text = refused(auxiliary_target, path)
    assert "file: trunk of another network than torchvision's, 352 outputs" in text
    missing = "model.layer4.1.conv2.weight, aux_header3.2.conv.weight"
    assert f"2 missing from the file: {missing}\n" in text
    assert "5 unknown to the network: extra.0, extra.1, extra.2, and 2 more\n" in text


@pytest.mark.parametrize(
    ("trunk", "grid", "size", "use_aux"),
    [
        ("101next", Grid(), (288, 800), True),
        ("50wide", Grid(200, 18), (320, 640), False),
        ("18", Grid(7, 3), (32, 32), False),
    ],
)
def test_description(trunk: str, grid: Grid, size: tuple[int, int], use_aux: bool) -> None:
    with torch.device("meta"):
        state = LaneNetwork(trunk, grid, size, use_aux).state_dict()
    features = 8 * size[0] * size[1] // 32**2
    assert describe(state) == ((trunk,), grid.outputs, features, use_aux)


# ---------------------------------------------------------------- files without a lane network


class RunsCode:
    """Pickles as a call that creates a folder: what a malicious checkpoint would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [None, 2, 4], ids=["torch.save", "pickle 2", "pickle 4"])
def test_a_file_with_code_is_refused_unopened(
    target: LaneNetwork, tmp_path: Path, path: Path, protocol: int | None
) -> None:
    marker = tmp_path / "ran"
    content = {"model": RunsCode(marker)}
    if protocol is None:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    text = refused(target, path)
    if protocol == 4:  # torch does not read this protocol far enough to see what it would run
        assert f"{path} is a pickle that torch.save did not write" in text
    else:
        assert f"refused to open {path}: safe loading allows tensors and plain values" in text
        assert f"this file would run {os.name}.mkdir; where it was written, save the" in text
    assert "weights_only" not in text  # torch's message advises to switch the protection off
    assert not marker.exists()
    if protocol is None:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()  # a careless loader does run it


def test_a_whole_network_is_refused(path: Path) -> None:
    torch.save(network(), path)
    with pytest.raises(InputError, match=r"would run detprune_lanes\.network\.model\.LaneNetwork;"):
        read_checkpoint(path)


def test_an_ultralytics_checkpoint_is_named(path: Path) -> None:
    path.write_bytes(b"cultralytics.nn.tasks\nDetectionModel\n)R.")
    with pytest.raises(InputError, match=r"is an Ultralytics checkpoint .*DetectionModel.*yolo"):
        read_checkpoint(path)


def test_classes_that_a_program_allows_are_still_refused(path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), path)
    # Ultralytics allows its own classes for the whole process, so that other loads go on with them
    with torch.serialization.safe_globals([torch.nn.Linear]):
        torch.load(path, weights_only=True)
        allowed = set(torch.serialization.get_safe_globals())
        with pytest.raises(InputError, match=r"would run torch\.nn\.modules\.linear\.Linear;"):
            read_checkpoint(path)
        assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            lambda s: models.resnet18(weights=None).state_dict(),
            "holds a ResNet classifier, such as",
        ),
        (
            lambda s: {
                "state_dict": prefixed(models.resnet18(weights=None).state_dict(), "model.")
            },
            "holds a ResNet classifier, such as torchvision's, which a trunk starts from with",
        ),
        (
            lambda s: {n: v for n, v in s.items() if n.startswith("model.")},
            "holds a residual trunk without a lane network's pool, cls.0 and cls.2",
        ),
        (
            lambda s: {
                "model": {
                    n.replace("cls.2.", "cls.3.").replace("cls.0.", "cls.1."): v
                    for n, v in s.items()
                }
            },
            "holds a network of Ultra-Fast-Lane-Detection-v2, which is another one",
        ),
        (
            lambda s: {
                "model.0.conv.weight": torch.zeros(1),
                "model.1.conv.weight": torch.zeros(1),
            },
            "holds the weights of an Ultralytics network",
        ),
        (
            lambda s: {**s, "cls.0.weight": torch.zeros(3)},
            "holds a residual trunk without a lane network's pool, cls.0 and cls.2",
        ),
        (
            lambda s: {"epoch": 3, "masks": {}},
            "holds a dict with 'epoch', 'masks'; give a checkpoint",
        ),
        (lambda s: {"model": {"cls.0.weight": "text"}}, "holds a dict with 'model'; give"),
        (lambda s: {}, "holds a dict with no keys"),
        (lambda s: [1, 2], "holds a list, not a state dict"),
        (lambda s: torch.zeros(2), "holds a Tensor, not a state dict"),
    ],
)
def test_other_contents_are_named(path: Path, content: Any, text: str) -> None:
    torch.save(content(hollow()), path)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert f"{path} {text}" in str(caught.value)
    assert "give a checkpoint of Ultra-Fast-Lane-Detection or of detprune" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty, damaged, of another format"),
        (b"hello world, no checkpoint at all " * 9, "cannot be opened: it is empty, damaged"),
        (b"PK\x03\x04 cut off", "cannot be opened"),
        (bytes(range(256)), "cannot be opened"),
        (b"<!DOCTYPE html><title>Google Drive - Virus scan warning", "is a text file: a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        (bytes(257) + b"ustar\x0000" + bytes(248), "is a tar archive and no checkpoint"),
        (b"\x1f\x8b\x08" + bytes(30), "is compressed by gzip and no checkpoint"),
    ],
    ids=["empty", "text", "cut zip", "bytes", "web page", "LFS", "tar", "gzip"],
)
def test_garbage_is_refused(path: Path, content: bytes, text: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=text):
        read_checkpoint(path)


@pytest.mark.parametrize("keep", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(
    target: LaneNetwork, path: Path, keep: float, zipped: bool
) -> None:
    torch.save({"model": hollow()}, path, _use_new_zipfile_serialization=zipped)
    os.truncate(path, int(path.stat().st_size * keep))
    text = refused(target, path)
    assert "damaged, of another format or holds more than tensors and plain values; copy" in text


def test_a_missing_file_and_a_folder(target: LaneNetwork, tmp_path: Path) -> None:
    text = refused(target, tmp_path / "none.pth")
    assert "there is no file" in text
    assert "nothing is downloaded" in text
    assert "is a folder; give a checkpoint of Ultra-Fast-Lane-Detection" in refused(
        target, tmp_path
    )
    text = refused(target, tmp_path / ("x" * 300))
    assert "File name too long; give a checkpoint of Ultra-Fast-Lane-Detection" in text
