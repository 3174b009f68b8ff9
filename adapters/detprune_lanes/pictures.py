"""Pictures of lanes for the report: each frame with its labels and the lanes that every network finds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from detprune.errors import InputError
from detprune.files.atomic import atomic
from detprune.run.report.style import BLUE, ORANGE, drawing, new_figure, plain
from detprune_lanes.data.labels import Frame
from detprune_lanes.grid import FRAME_HEIGHT, FRAME_WIDTH, Grid

TRUTH = "ground truth"

# drawn in this order: wide and pale first, so that later lines do not hide earlier ones
_STYLES: Mapping[str, tuple[str, float]] = {
    TRUTH: ("#FFFFFF", 6.0),
    "dense": (BLUE, 3.6),
    "hard-pruned": (ORANGE, 2.0),
    "final": ("#2EE6A6", 1.0),
}
_COLUMNS, _WIDTH, _DPI = 2, 11.0, 130


def draw_lanes(
    frames: Sequence[Frame], found: Mapping[str, Sequence[NDArray[np.float64]]], file: Path
) -> None:
    """Draw a sheet of frames with their labels, if they have any, and the lanes found, as JPEG.

    Args:
        frames: the frames.
        found: ``"dense"``, ``"hard-pruned"``, ``"final"`` → (lanes, rows) of x for each frame.
        file: the image file to write; it is written atomically.
    """
    lanes = {TRUTH: [frame.lanes for frame in frames], **found}
    if not any(lanes[TRUTH]):
        del lanes[TRUTH]
    lines = -(-len(frames) // _COLUMNS)
    cell = _WIDTH / _COLUMNS * FRAME_HEIGHT / FRAME_WIDTH + 0.3
    with drawing():
        figure = new_figure(0.5 + lines * cell, _WIDTH)
        grid = figure.subplots(lines, _COLUMNS, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for number, (axes, frame) in enumerate(zip(grid.flat, frames, strict=False)):
            axes.set_title(plain(frame.raw_file), fontsize=8, color="#5B6472", pad=3)
            axes.imshow(_pixels(frame.image), extent=(0, FRAME_WIDTH, FRAME_HEIGHT, 0))
            for kind, of_frames in lanes.items():
                for lane in of_frames[number]:
                    _plot(axes, lane, frame.rows, *_STYLES[kind])
            axes.set_xlim(0, FRAME_WIDTH)
            axes.set_ylim(FRAME_HEIGHT, 0)
        handles = [
            Line2D([], [], color=colour, linewidth=width, label=kind)
            for kind, (colour, width) in _STYLES.items()
            if kind in lanes
        ]
        legend = figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=len(handles),
            frameon=True,
            facecolor="#6B7280",
            labelcolor="white",
        )
        legend.get_frame().set_edgecolor("none")
        with atomic(file) as temporary:
            figure.savefig(temporary, dpi=_DPI, format="jpg", pil_kwargs={"quality": 85})


def _plot(
    axes: Axes, lane: NDArray[np.float64], rows: NDArray[np.float64], colour: str, width: float
) -> None:
    seen = np.where(lane >= 0, lane, np.nan)  # a gap stays a gap
    axes.plot(seen, rows, color=colour, linewidth=width, solid_capstyle="round")


def _pixels(file: Path) -> NDArray[np.uint8]:
    pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"{file} cannot be read as an image; put a whole one in its place")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def road_images(folder: Path, most: int) -> list[Frame]:
    """Up to ``most`` images of a folder as frames without labels, in the order of their names.

    Raises:
        InputError: no such folder, or no image in it.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise InputError(
            f"data.pictures is {str(folder)!r}, which is no folder; give one with road images of "
            f"{FRAME_WIDTH} × {FRAME_HEIGHT} pixels, or leave it out"
        )
    files = [f for f in sorted(folder.iterdir()) if f.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not files:
        raise InputError(f"data.pictures: {folder} holds no *.jpg and no *.png")
    rows = Grid().anchors()
    return [Frame(f.name, f.absolute(), rows, (), str(f)) for f in files[:most]]
