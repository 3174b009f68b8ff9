# SPDX-License-Identifier: AGPL-3.0-or-later
"""``detprune export`` for detectors: Ultralytics exports, and the file is measured against the networks."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from detprune.errors import DetpruneError, InputError
from detprune.run.adapter import Export, load_recipe
from detprune.run.directory import RunDirectory
from detprune.run.measuring.pairs import in_turn
from detprune_yolo.data.check import check_data
from detprune_yolo.export.exporter import exported, silence
from detprune_yolo.export.formats import Format, formats
from detprune_yolo.export.onnx import export_onnx, lines_of
from detprune_yolo.export.placing import check_place, put, size_of
from detprune_yolo.export.timing import ON_ONE_THREAD, outputs, program
from detprune_yolo.kinds import is_end_to_end, kind_of
from detprune_yolo.task import DetectionTask
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint
from detprune_yolo.weights.deployment import open_file

_ROUNDS = 30
_SECONDS = 6.0  # most seconds of timing


class _Request(NamedTuple):
    run: Path
    out: Path
    wanted: Format
    int8: bool
    task: DetectionTask

    @property
    def weights(self) -> Path:
        return self.run / "pruned.pt"

    @property
    def data(self) -> Path | None:
        """The data set, None where it is not found any more."""
        try:
            place = self.task.data_yaml  # a classifier's is a folder
            return place if place.exists() else None
        except InputError:
            return None


def export_formats(*, int8: bool = False) -> Mapping[str, Export]:
    """Name of a format → the function that exports a run."""
    found = formats().items()
    return {name: partial(export, f, int8=int8) for name, f in found if f.int8 or not int8}


def export(wanted: Format, run: Path, out: Path | None = None, *, int8: bool = False) -> list[str]:
    """Export ``pruned.pt`` of a run, and measure what the file gains; return lines to print.

    The file is compared with pruned.pt in its outputs (float32) and metrics, and timed in turn with the dense
    network, exported to the same format in float32.

    Args:
        wanted: the format.
        run: a finished run.
        out: the file or folder; None: ``pruned…`` in the run's folder.
        int8: whether weights and activations become integers, calibrated on the run's training images.

    Raises:
        InputError: no finished run, a format, name or package that cannot be used, or images for int8 that are
            missing or damaged.
        DetpruneError: the export fails, or the file does not give what the network gives.
    """
    wanted.check(int8)
    with RunDirectory(run).own_file():
        kind = kind_of(load_model(run / "pruned.pt"))
    place = out or run / wanted.file_name("pruned", int8)
    check_place(place, wanted)
    _, recipe = load_recipe(run / "recipe.yaml")
    request = _Request(run, place, wanted, int8, DetectionTask(recipe, RunDirectory(run)))
    if int8 and request.data is None:
        raise InputError(
            f"int8 is calibrated on training images, but the data set of {run} is not there any more; put it "
            f"where {run / 'recipe.yaml'} names it (a relative path counts from the working directory), or name its "
            "place there"
        )
    if int8 and request.data is not None:
        check_data(request.data, kind=kind)
    return list(_exported(request))


def _exported(request: _Request) -> Iterator[str]:
    wanted, weights = request.wanted, request.weights
    (image,) = open_file(weights).inputs
    size = (image.shape[2], image.shape[3])
    yield str(request.out)
    if is_end_to_end(load_model(weights)):
        yield "one-to-one branch, nms=False"
    if wanted.name == "onnx" and not request.int8:
        yield from lines_of(export_onnx(weights, request.out, imgsz=size), weights)
        yield from _metrics(request)
    else:
        with exported(weights, wanted, int8=request.int8, size=size, data=request.data) as written:
            if not request.int8:
                yield _difference(request, written, image)
            scores = list(_metrics(request, written))
            put(written, request.out)
        yield from scores
    yield from _gain(request, image, size)


def _difference(request: _Request, written: Path, image: Tensor) -> str:
    """Largest difference of the file's outputs from PyTorch's, on one image of noise."""
    network = load_model(request.weights).fuse(verbose=False)
    with torch.inference_mode():
        expected = network(image)
    first = expected[0] if isinstance(expected, list | tuple) else expected
    # a network for masks gives its prototypes beside the detections
    wanted = list(first) if isinstance(first, list | tuple) else [first]
    found = outputs(written, image)[: len(wanted)]
    if [own.shape for own in found] != [own.shape for own in wanted]:
        here, there = (", ".join(str(tuple(o.shape)) for o in own) for own in (found, wanted))
        return f"outputs of shape {here}; PyTorch's have {there}, and were not compared"
    gaps = [(own - other).abs() for own, other in zip(found, wanted, strict=True)]
    if not all(torch.isfinite(gap).all() for gap in gaps):
        raise DetpruneError(
            f"the outputs of the {request.wanted.title} file are no numbers, so it was not written"
        )
    return (
        f"largest difference of an output from PyTorch: {max(float(gap.max()) for gap in gaps):.2g}, where outputs "
        f"reach {max(float(own.abs().max()) for own in wanted):.4g}"
    )


def _metrics(request: _Request, written: Path | None = None) -> Iterator[str]:
    task = request.task
    if request.data is None:
        yield (
            "its metrics are not measured: the run's data set is not where its recipe.yaml names it (a relative path "
            "counts from the working directory)"
        )
        return
    network = load_model(request.weights)
    try:
        with silence():
            before = task.evaluate_exported(network)
            after = task.evaluate_exported(network, written or request.out)
    except InputError as error:  # of the data set
        yield f"its metrics are not measured: {error}"
        return
    for metric in task.metrics:
        yield (
            f"{metric.name}: {after[metric.name]:.4f}, and {before[metric.name]:.4f} of {request.weights.name} on the "
            "same images, padded to squares"
        )


def _gain(request: _Request, image: Tensor, size: tuple[int, int]) -> Iterator[str]:
    """Bytes and milliseconds against the dense network in float32, in the same format."""
    bytes_after = size_of(request.out)
    wanted = request.wanted
    if (
        not wanted.float32 or request.data is None
    ):  # the dense network is built for the data set's classes
        yield f"{bytes_after:,} bytes"
        return
    with (
        _dense(request) as dense,
        exported(dense, wanted, int8=False, size=size, data=None) as before,
    ):
        bytes_before = size_of(before)
        yield (
            f"{bytes_after:,} bytes, and {bytes_before:,} of the dense network in float32: ratio "
            f"{bytes_after / bytes_before:.3f}"
        )
        programs = (
            program(before, wanted.name, image),
            program(request.out, wanted.name, image),
        )
        times = in_turn(programs, rounds=_ROUNDS, seconds=_SECONDS)
    first, ratio, third = times.ratios()
    threads = ", one thread" if wanted.name in ON_ONE_THREAD else ""
    yield (
        f"{times.median(1):.2f} ms an image of {size[0]} × {size[1]}{threads}, and {times.median(0):.2f} ms of the "
        f"dense network in float32: ratio {ratio:.3f} (quartiles {first:.3f} to {third:.3f})"
    )


@contextmanager
def _dense(request: _Request) -> Iterator[Path]:
    """The dense network of the run as an Ultralytics checkpoint."""
    with tempfile.TemporaryDirectory(prefix="detprune-") as folder:
        path = Path(folder) / "dense.pt"
        save_checkpoint(path, pruned_checkpoint(request.task.network_after("dense"), None))
        yield path
