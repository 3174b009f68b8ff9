"""Tiny networks with an odd structure: what they return, share, keep, and when they run; see ``odd_parts.py``."""

import dataclasses
from collections import OrderedDict, UserDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from channel_checks import Net
from odd_parts import GOES, NOT_ZERO, Case, Made, between, c88, conv, image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def network(
    run: Callable[..., Any], *inputs: Callable[[], Any], **parts: Any
) -> Callable[[], Made]:
    """Convolutions ``a`` (3 → 8), ``b`` (8 → 8) and ``c`` (8 → 4), other parts, and what they do."""

    def make() -> Made:
        made = {
            k: v() if callable(v) and not isinstance(v, nn.Module) else v for k, v in parts.items()
        }
        own = {"a": conv(3, 8), "b": conv(8, 8), "c": conv(8, 4)}
        return Net(run, **(own | made)), tuple(i() for i in inputs or (image,))

    return make


def returning(pack: Callable[[Tensor, Tensor], Any]) -> Callable[[], Made]:
    """Returns the final result and what ``a`` writes, packed."""

    def run(m: Net, x: Tensor) -> Any:
        h = m.a(x)
        return pack(m.c(m.b(h.relu()).relu()), h)

    return network(run)


@dataclasses.dataclass
class Output:
    result: Tensor
    features: Tensor


@dataclasses.dataclass(slots=True)
class Slotted:
    result: Tensor
    features: Tensor


class Named(NamedTuple):
    result: Tensor
    features: Tensor


class Mine(dict[str, Tensor]):
    pass


class Lists(list[Tensor]):
    pass


def kept_by_module(m: Net, x: Tensor) -> Tensor:
    m.features = m.a(x)
    return m.c(m.b(m.features).relu())


def kept_in_list(m: Net, x: Tensor) -> Tensor:
    m.features = [m.a(x)]
    return m.c(m.b(m.features[0]).relu())


def hooked() -> Made:
    model, inputs = network(lambda m, x: m.c(m.b(m.a(x)).relu()))()
    model.seen = {}
    model.a.register_forward_hook(Keeps(model.seen))
    return model, inputs


class Keeps:
    """A hook that keeps what a module returns."""

    def __init__(self, seen: dict[str, Tensor]) -> None:
        self.seen = seen

    def __call__(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.seen["out"] = out


def shared_on_scales(m: Net, x: Tensor) -> Any:
    h = m.a(x).relu()
    return m.c(m.b(h).relu()), m.c(m.b(F.max_pool2d(h, 2)).relu())


def shared_on_cats(m: Net, x: Tensor) -> Tensor:
    one, two = m.a(x).relu(), m.b(m.a(x).relu())
    return m.d(torch.cat([one, two], 1)) + m.d(torch.cat([two, one], 1))


def shared_block(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    for _ in range(3):
        h = h + m.b(h).relu()
    return m.c(h)


def tied() -> Made:
    model = nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 4)
    )
    model[4].weight = model[2].weight
    return model, (image(),)


def tied_norms() -> Made:
    norm = nn.BatchNorm2d(8)
    return nn.Sequential(conv(3, 8), norm, nn.ReLU(), conv(8, 8), norm, nn.ReLU(), conv(8, 4)), (
        image(),
    )


def reparametrised(how: Callable[[nn.Module], nn.Module]) -> Callable[[], Made]:
    def make() -> Made:
        return nn.Sequential(
            conv(3, 8), nn.ReLU(), how(conv(8, 8)), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 4)
        ), (image(),)

    return make


def frozen_norm() -> Made:
    model = nn.Sequential(
        conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 4)
    )
    model[1].requires_grad_(False)
    return model, (image(),)


class FrozenNorm(nn.Module):
    """A batch norm whose parameters are buffers, as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight * (self.var + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias - self.mean).reshape(1, -1, 1, 1)


def auxiliary(m: Net, x: Tensor) -> Any:
    h = m.a(x).relu()
    out = m.c(m.b(h).relu())
    return (out, m.d(h)) if m.training else out


def auxiliary_with_targets(m: Net, x: Tensor, target: Tensor | None = None) -> Any:
    h = m.a(x).relu()
    out = m.c(m.b(h).relu())
    return (out - target[0], m.d(h)) if m.training else out


def drops_paths(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    if m.training:
        keep = torch.empty(h.shape[0], 1, 1, 1).bernoulli_(0.5)
        return m.c(h + m.b(h) * keep)
    return m.c(h + m.b(h))


def by_checkpoint(m: Net, x: Tensor) -> Tensor:
    return m.c(checkpoint(lambda h: m.b(h.relu()).relu(), m.a(x), use_reentrant=False))


def decides(m: Net, x: Tensor) -> Tensor:
    h = m.a(x).relu()
    return m.c(h + m.b(h) if x.abs().sum() > 0 else m.b(h))


def input_changed(m: Net, x: Tensor) -> Tensor:
    x.sub_(1.0)
    return m.c(m.b(m.a(x).relu()).relu())


def noisy(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.c(m.b(h + 0.1 * torch.randn(h.shape[0], 1, *h.shape[2:])).relu())


def noisy_channels(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.c(m.b(h * torch.rand_like(h)).relu())


def autocast_inside() -> Made:
    def run(m: Net, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return m.c(m.b(m.a(x).relu()).relu()).float()

    model, (x,) = network(run)()
    return model.float(), (x.float(),)


def squeezed_in_place(m: Net, x: Tensor) -> Tensor:
    h = m.b(m.a(x).mean((2, 3), keepdim=True).relu()).relu()
    h.squeeze_(3).squeeze_(2)
    return m.c(h[..., None, None])


def with_list(m: Net, x: Tensor) -> Tensor:
    h = m.a(x).relu()
    return m.c(sum(layer(h) for layer in m.many))


def of_dict(m: Net, batch: dict[str, Tensor]) -> Tensor:
    return m.c(m.b(m.a(batch["image"]).relu() * batch["scale"]).relu())


A_STAYS = {"a.weight": "is an output of the network", "b.weight": None}
KEPT = {"a.weight": "is kept by a module or a hook", "b.weight": None}
BOTH: dict[str, str | None] = {"a.weight": None, "b.weight": None}

CASES: dict[str, Case] = {
    "returns a tuple": (returning(lambda y, h: (y, h)), A_STAYS),
    "returns nested lists": (returning(lambda y, h: [y, [{"h": (h,)}]]), A_STAYS),
    "returns a dict": (returning(lambda y, h: {"y": y, "h": h}), A_STAYS),
    "returns an OrderedDict": (returning(lambda y, h: OrderedDict(y=y, h=h)), A_STAYS),
    "returns a UserDict": (returning(lambda y, h: UserDict(y=y, h=h)), A_STAYS),
    "returns a dict of its own": (returning(lambda y, h: Mine(y=y, h=h)), A_STAYS),
    "returns a list of its own": (returning(lambda y, h: Lists([y, h])), A_STAYS),
    "returns a dataclass": (returning(Output), A_STAYS),
    "returns slots": (returning(Slotted), A_STAYS),
    "returns a named tuple": (returning(Named), A_STAYS),
    "returns a namespace": (returning(lambda y, h: SimpleNamespace(y=y, h=[h])), A_STAYS),
    "returns a view": (returning(lambda y, h: (y, h.flatten(1))), A_STAYS),
    "returns a sum over channels": (
        returning(lambda y, h: (y, h.sum(1))),
        {"a.weight": "across channels", "b.weight": None},
    ),
    "returns None as well": (returning(lambda y, h: (y, None, 3, "text")), BOTH),
    "module keeps a result": (network(kept_by_module), KEPT),
    "module keeps a list": (network(kept_in_list), KEPT),
    "hook keeps a result": (hooked, KEPT),
    "output is an input": (network(lambda m, x: (x, m.c(m.b(m.a(x)).relu()))), BOTH),
    "residual of the input": (
        network(lambda m, x: m.c(m.b(m.d(x) + x)), lambda: image(8), d=c88),
        {"d.weight": "fixed width", "b.weight": None},
    ),
    "two inputs": (network(lambda m, x, y: m.c(m.b(m.a(x) + m.a(y)).relu()), image, image), BOTH),
    "a number as input": (network(lambda m, x, s: m.c(m.b(m.a(x) * s)), image, lambda: 2.0), BOTH),
    "a mask as input": (
        network(lambda m, x, s: m.c(m.b(m.a(x) * s)), image, lambda: torch.ones(2, 1, 6, 6) > 0),
        BOTH,
    ),
    "a dict as input": (
        network(of_dict, lambda: {"image": image(), "scale": torch.rand(2, 1, 1, 1)}),
        BOTH,
    ),
    "unused parameters": (
        network(lambda m, x: m.c(m.b(m.a(x))), d=c88, s=lambda: nn.Parameter(torch.ones(8))),
        BOTH,
    ),
    "an auxiliary head": (network(auxiliary, d=lambda: conv(8, 2)), BOTH),
    "an auxiliary head that wants targets": (
        network(auxiliary_with_targets, d=lambda: conv(8, 2)),
        BOTH,
        {"training": False},
    ),
    "shared on two scales": (network(shared_on_scales), BOTH),
    "shared on two concatenations": (network(shared_on_cats, d=lambda: conv(16, 4)), BOTH),
    "shared block": (network(shared_block), BOTH),
    "tied weights": (tied, {"0.weight": "", "2.weight": "shared between modules"}),
    "shared norm": (tied_norms, {"0.weight": None, "3.weight": None}),
    "weight norm": (
        reparametrised(torch.nn.utils.parametrizations.weight_norm),
        {"4.weight": None},
    ),
    "spectral norm": (
        reparametrised(torch.nn.utils.parametrizations.spectral_norm),
        {"4.weight": None},
    ),
    "old spectral norm": (
        reparametrised(torch.nn.utils.spectral_norm),
        {"4.weight": None},
        {"training": False},
    ),
    "orthogonal": (reparametrised(torch.nn.utils.parametrizations.orthogonal), {"4.weight": None}),
    "masks of torch.nn.utils.prune": (
        reparametrised(lambda m: torch.nn.utils.prune.identity(m, "weight")),
        {"4.weight": None},
    ),
    "frozen norm": (frozen_norm, {"0.weight": "is frozen", "3.weight": None}),
    "norm of buffers": (between(lambda m, x: m.n(x), n=FrozenNorm), NOT_ZERO),
    "dropout": (between(lambda m, x: m.n(x), n=lambda: nn.Dropout(0.5)), GOES, {"training": False}),
    "dropout of channels": (
        between(lambda m, x: m.n(x), n=lambda: nn.Dropout2d(0.5)),
        GOES,
        {"training": False},
    ),
    "dropout always": (between(lambda m, x: F.dropout(x, 0.0, training=True)), GOES),
    "stochastic depth": (network(drops_paths), BOTH, {"training": False}),
    "checkpointed": (network(by_checkpoint), BOTH),
    "values decide on a branch": (network(decides), BOTH, {"training": False}),
    "changes its input": (network(input_changed), BOTH),
    "noise": (network(noisy), {"b.weight": None}),
    "noise for every channel": (
        network(noisy_channels),
        {"b.weight": None, "a.weight": "something else depends on"},
    ),
    "autocast inside": (autocast_inside, BOTH, {"tolerance": 0.05}),
    "squeezed in place": (network(squeezed_in_place), {"a.weight": None, "b.weight": "squeeze_"}),
    "a list of layers": (
        network(with_list, many=lambda: nn.ModuleList([c88(), c88()])),
        {"a.weight": None, "many.0.weight": None},
    ),
    "a layer that is the identity": (between(lambda m, x: m.n(x), n=nn.Identity), GOES),
    "complex": (
        between(lambda m, x: torch.view_as_real(torch.complex(x, x)).sum(-1)),
        {"a.weight": ""},
    ),
    "one channel": (between(lambda m, x: x, 1, 1), {"a.weight": ""}),
    "a linear layer in one dimension": (
        network(
            lambda m, x: m.l2(m.l1(x[0]).relu()),
            lambda: torch.randn(2, 5),
            l1=lambda: nn.Linear(5, 8),
            l2=lambda: nn.Linear(8, 3),
        ),
        {"l1.weight": None},
        {"exact_costs": False},
    ),
}
