"""The look of drawn roads; training and test frames are drawn in two different styles.

A test set in the training style would differ from the training set by random numbers alone. So the test
style has other palettes of road, ground, sky and vehicles (their ranges touch but hardly overlap),
another texture of the road (grooves, patches and tar seams instead of slabs, stains and joints), other
dashes, thinner paint that is worn more often, cypresses, poles and bridges instead of round trees, stripes of shadow
instead of blots, vans and hatchbacks instead of saloons, more dusk and glare, and more noise and blur.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from detprune.errors import unknown

Colour = tuple[int, int, int]
"""Blue, green, red."""

Range = tuple[float, float]


class Body(NamedTuple):
    """A kind of vehicle, in metres; ``roof`` is the roof's width as a share of its own."""

    width: float
    height: float
    length: float
    waist: float
    roof: float


@dataclass(frozen=True)
class Style:
    """Ranges and probabilities from which the look of every frame is drawn.

    Attributes:
        roads: colours of the surface.
        grounds: colours beside the road.
        foliage: colours of trees and bushes.
        barriers: colours of walls.
        skies: pairs of colours, at the top and above the horizon, per light.
        lights: kind of light → chance.
        slabs, grooves, patches, seams, stains: chances of the road's textures.
        grain: strength of the road's grain, in grey levels.
        dashes: pairs of metres of paint and metres between.
        dots: chance of reflectors between the dashes.
        paint_width: metres.
        opacity: opacity of the paint before wear.
        wear: share of the paint that is gone.
        missing: chance that a boundary has no paint at all.
        tree: shape of the trees.
        trees: number of trees.
        shadow: shape of the shadows that trees throw on the road.
        bridge: chance of a bridge over the road.
        bodies: kinds of vehicles.
        coats: colours of vehicles.
        traffic: vehicles per lane, on average.
        bonnet: chance that the car's own bonnet is seen.
        blur: standard deviation in pixels.
        noise: standard deviation of the sensor's noise, in grey levels.
        squeezed: chance that the frame was compressed strongly before.
    """

    roads: tuple[Colour, ...]
    grounds: tuple[Colour, ...]
    foliage: tuple[Colour, ...]
    barriers: tuple[Colour, ...]
    skies: dict[str, tuple[tuple[Colour, Colour], ...]]
    lights: dict[str, float]
    slabs: float
    grooves: float
    patches: float
    seams: float
    stains: float
    grain: Range
    dashes: tuple[tuple[float, float], ...]
    dots: float
    paint_width: Range
    opacity: Range
    wear: Range
    missing: float
    tree: Literal["round", "spiky"]
    trees: tuple[int, int]
    shadow: Literal["blots", "stripes"]
    bridge: float
    bodies: tuple[Body, ...]
    coats: tuple[Colour, ...]
    traffic: float
    bonnet: float
    blur: Range
    noise: Range
    squeezed: float


TRAIN = Style(
    roads=((132, 139, 142), (120, 126, 129), (108, 110, 112), (92, 94, 96), (76, 78, 80)),
    grounds=((60, 92, 108), (52, 82, 76), (84, 108, 122), (44, 70, 62)),
    foliage=((26, 42, 34), (34, 52, 46), (40, 66, 56), (22, 34, 30)),
    barriers=((120, 152, 172), (148, 156, 160), (126, 132, 136)),
    skies={
        "overcast": (((150, 140, 132), (196, 190, 184)), ((112, 104, 98), (170, 164, 158))),
        "sunny": (((196, 132, 70), (230, 204, 172)), ((176, 112, 60), (218, 186, 150))),
        "glare": (((214, 196, 180), (246, 240, 234)),),
        "dusk": (((110, 76, 62), (150, 150, 190)), ((84, 66, 60), (128, 118, 128))),
    },
    lights={"overcast": 0.4, "sunny": 0.42, "glare": 0.08, "dusk": 0.1},
    slabs=0.5,
    grooves=0.0,
    patches=0.15,
    seams=0.15,
    stains=0.8,
    grain=(6, 16),
    dashes=((3.05, 9.15), (3.66, 7.32), (4.57, 7.62)),
    dots=0.6,
    paint_width=(0.12, 0.17),
    opacity=(0.7, 1.0),
    wear=(0.0, 0.35),
    missing=0.03,
    tree="round",
    trees=(8, 26),
    shadow="blots",
    bridge=0.06,
    bodies=(
        Body(1.82, 1.45, 4.7, 0.58, 0.72),
        Body(1.9, 1.75, 4.8, 0.55, 0.8),
        Body(2.0, 1.9, 5.6, 0.5, 0.85),
        Body(2.5, 3.6, 8.0, 0.97, 1.0),
    ),
    coats=(
        (40, 38, 36),
        (225, 225, 222),
        (150, 148, 146),
        (44, 40, 96),
        (96, 64, 40),
        (90, 92, 96),
    ),
    traffic=0.9,
    bonnet=0.06,
    blur=(0.3, 0.9),
    noise=(1.0, 4.0),
    squeezed=0.08,
)

TEST = Style(
    roads=((142, 139, 132), (124, 119, 112), (102, 97, 90), (82, 78, 72), (64, 61, 57)),
    grounds=((70, 104, 62), (92, 118, 134), (58, 88, 104), (96, 100, 96)),
    foliage=((44, 58, 28), (30, 50, 52), (54, 80, 46), (36, 38, 44)),
    barriers=((160, 160, 152), (104, 108, 108), (96, 120, 140)),
    skies={
        "overcast": (((168, 166, 164), (210, 210, 208)), ((128, 126, 128), (160, 162, 168))),
        "sunny": (((210, 156, 96), (224, 208, 190)), ((160, 120, 88), (226, 210, 190))),
        "glare": (((190, 206, 220), (226, 240, 250)),),
        "dusk": (((96, 62, 70), (112, 140, 206)), ((70, 58, 56), (104, 100, 112))),
    },
    lights={"overcast": 0.32, "sunny": 0.36, "glare": 0.14, "dusk": 0.18},
    slabs=0.1,
    grooves=0.45,
    patches=0.45,
    seams=0.45,
    stains=0.35,
    grain=(8, 20),
    dashes=((3.0, 6.0), (4.0, 8.0), (6.0, 9.0)),
    dots=0.15,
    paint_width=(0.1, 0.15),
    opacity=(0.6, 0.95),
    wear=(0.1, 0.45),
    missing=0.05,
    tree="spiky",
    trees=(5, 20),
    shadow="stripes",
    bridge=0.15,
    bodies=(
        Body(1.75, 1.5, 4.0, 0.5, 0.85),
        Body(1.98, 2.1, 5.2, 0.52, 0.94),
        Body(2.0, 2.5, 5.8, 0.55, 0.97),
        Body(2.55, 4.0, 9.0, 0.96, 1.0),
    ),
    coats=(
        (66, 92, 74),
        (196, 202, 208),
        (118, 98, 72),
        (80, 120, 158),
        (40, 40, 112),
        (70, 66, 60),
        (170, 160, 140),
    ),
    traffic=1.2,
    bonnet=0.12,
    blur=(0.5, 1.1),
    noise=(2.0, 6.0),
    squeezed=0.15,
)

STYLES = {"train": TRAIN, "test": TEST}


def style_of(name: str) -> Style:
    """The style of a split.

    Raises:
        InputError: there is no such style.
    """
    if name not in STYLES:
        raise unknown("drawing style", name, STYLES)
    return STYLES[name]
