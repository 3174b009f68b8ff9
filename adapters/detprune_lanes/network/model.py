"""The network of Ultra-Fast-Lane-Detection.

Qin, Wang and Li, "Ultra Fast Structure-aware Deep Lane Detection", ECCV 2020, section 3 and figure 5.
Names, order and shapes of the parameters are those of the original repository's ``parsingNet``, so
that checkpoints, states of optimizers included, fit both.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from detprune.errors import InputError
from detprune_lanes.grid import Grid
from detprune_lanes.network.trunks import Trunk

STRIDE = 32  # pixels of the image for one of the deepest features
POOLED_CHANNELS = 8
HIDDEN = 2048


class ConvBnRelu(nn.Module):
    """A 3×3 convolution that keeps height and width, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) → (N, out_channels, h, w)."""
        x = self.relu(self.bn(self.conv(x)))
        return x


class LaneNetwork(nn.Module):
    """Says for each lane and row in which cell of the image the lane is.

    The deepest features are pooled to eight channels by a 1×1 convolution, and two linear layers see
    all of them at once. The auxiliary branch, for training, segments the lanes at 1/8 of the size.

    Args:
        trunk: one of ``TRUNKS``.
        grid: cells, rows and lanes.
        size: height and width of the images, multiples of 32.
        use_aux: whether there is an auxiliary branch.

    Attributes:
        model: the trunk.
        pool, cls: the main branch; ``cls.2`` holds most of a small network's weights.
        aux_header2, aux_header3, aux_header4, aux_combine: the auxiliary branch, if there is one.

    Raises:
        InputError: an unknown trunk, or a size that is not a multiple of 32.
    """

    def __init__(
        self,
        trunk: str = "18",
        grid: Grid = Grid(),  # noqa: B008  # frozen
        size: tuple[int, int] = (288, 800),
        use_aux: bool = False,
    ) -> None:
        super().__init__()
        self.grid, self.size, self.use_aux = grid, checked_size(size), use_aux
        # in the original's order: optimizer states and random initial weights depend on it
        self.model = Trunk(trunk)
        self.trunk = self.model.name
        eighth, sixteenth, deepest = self.model.channels
        if use_aux:
            self.aux_header2 = _header(eighth, 4)
            self.aux_header3 = _header(sixteenth, 3)
            self.aux_header4 = _header(deepest, 2)
            self.aux_combine = nn.Sequential(
                ConvBnRelu(384, 256, dilation=2),
                ConvBnRelu(256, 128, dilation=2),
                ConvBnRelu(128, 128, dilation=2),
                ConvBnRelu(128, 128, dilation=4),
                nn.Conv2d(128, grid.lanes + 1, 1),
            )
            for branch in (self.aux_header2, self.aux_header3, self.aux_header4, self.aux_combine):
                branch.apply(_initialize)
        height, width = self.size
        self.cls = nn.Sequential(
            nn.Linear(POOLED_CHANNELS * (height // STRIDE) * (width // STRIDE), HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, grid.outputs),
        )
        self.pool = nn.Conv2d(deepest, POOLED_CHANNELS, 1)  # keeps torch's own initialisation
        self.cls.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits (N, cells + 1, rows, lanes), class ``cells`` for "no lane in this row".

        With the auxiliary branch, in training and evaluation alike, also those of the segmentation,
        (N, lanes + 1, H/8, W/8), class 0 for the background.

        Args:
            images: (N, 3, H, W) of the network's size, RGB, normalised with ImageNet's mean and std.

        Raises:
            InputError: images of another size.
        """
        if not torch.onnx.is_in_onnx_export() and tuple(images.shape[1:]) != (3, *self.size):
            raise InputError(
                f"the images have the shape {tuple(images.shape)}; this network takes "
                f"(N, 3, {self.size[0]}, {self.size[1]}): resize them, or make the network with "
                "another size"
            )
        eighth, sixteenth, deepest = self.model(images)
        grid = self.grid
        logits: Tensor = self.cls(self.pool(deepest).flatten(1))
        logits = logits.unflatten(1, (grid.cells + 1, grid.rows, grid.lanes))
        if not self.use_aux:
            return logits
        features = [
            self.aux_header2(eighth),
            _upsampled(self.aux_header3(sixteenth), 2),
            _upsampled(self.aux_header4(deepest), 4),
        ]
        return logits, self.aux_combine(torch.cat(features, dim=1))

    def without_aux(self) -> "LaneNetwork":
        """A copy without auxiliary branch, in eval mode, as it is deployed."""
        deployed = copy.deepcopy(self)
        if deployed.use_aux:
            del deployed.aux_header2, deployed.aux_header3
            del deployed.aux_header4, deployed.aux_combine
            deployed.use_aux = False
        return deployed.eval()


def checked_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a network's input, if a network can have them.

    Raises:
        InputError: they are not two multiples of 32.
    """
    sides = size if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"size is {size}; give height and width in pixels, multiples of {STRIDE}, such as (288, 800)"
        )
    if any(side % STRIDE for side in size):
        lower, upper = (
            tuple(max(STRIDE, (side + extra) // STRIDE * STRIDE) for side in size)
            for extra in (0, STRIDE - 1)
        )
        near = " or ".join(dict.fromkeys((str(lower), str(upper))))
        raise InputError(
            f"size is {tuple(size)}; height and width have to be multiples of {STRIDE}: {near}"
        )
    return size[0], size[1]


def _header(in_channels: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(ConvBnRelu(128 if i else in_channels, 128) for i in range(layers)))


def _upsampled(x: Tensor, factor: int) -> Tensor:
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _initialize(module: nn.Module) -> None:
    """Initialise as the original does; only a linear layer's bias stays as torch makes it."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
