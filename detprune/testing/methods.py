"""The contract of a method."""

import io
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from detprune.budgets import Budget
from detprune.errors import NonFiniteError
from detprune.methods import Method
from detprune.pruner import Pruner
from detprune.testing.requirement import require

_HALF = Budget(sparsity=0.5)
_STEPS = 4  # steps in an outer iteration


def check_method(method: Method) -> None:
    """Check what the pruner and its users rely on, on a network of two layers that trains for a few steps.

    - Its hyperparameters are hashable, and training changes none of them.
    - After hard pruning exactly the promised number of weights is zero, and stays zero under SGD and Adam.
    - Weights keep their dtype and their place in memory, in float32 and bfloat16.
    - Saved, loaded and continued, it gives the same bits, in the middle of an outer iteration and after one.
    - A NaN in the weights is refused by ``update``, and leaves the method's state as it was.

    Raises:
        AssertionError: with what does not hold.
    """
    _check_hyperparameters(method)
    for dtype in (torch.float32, torch.bfloat16):
        for kind in (torch.optim.SGD, torch.optim.Adam):
            _check_zeros(method, dtype, kind)
    for steps in (2 * _STEPS, 2 * _STEPS + 1):
        _check_resume(method, steps)
    _check_refusal(method)


class _Loop:
    """A small network in training, the same for the same arguments."""

    def __init__(
        self,
        method: Method,
        dtype: torch.dtype = torch.float32,
        kind: type[Optimizer] = torch.optim.SGD,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(dtype)
        momentum: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        self.optimizer = kind(self.model.parameters(), lr=0.02, **momentum)  # type: ignore[call-arg]
        self.pruner = Pruner(
            self.model, self.optimizer, method, budget=_HALF, steps_per_update=_STEPS, updates=4
        )
        self.dtype = dtype

    def train(self, steps: Iterable[int], updates: bool = True) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(16, 6, generator=generator).to(self.dtype)
            y = torch.randint(4, (16,), generator=generator)
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x).float(), y)
            loss.backward()
            self.optimizer.step()
            if updates:
                self.pruner.observe(loss)
                if step % _STEPS == _STEPS - 1:
                    self.pruner.update()

    @property
    def weights(self) -> dict[str, Tensor]:
        return {n: p.detach() for n, p in self.model.named_parameters() if p.dim() > 1}


def _check_hyperparameters(method: Method) -> None:
    before = repr(method)
    hash(method)
    loop = _Loop(method)
    loop.train(range(2 * _STEPS))
    loop.pruner.hard_prune()
    require(
        repr(method) == before,
        f"training has changed the hyperparameters of {type(method).__name__}; what changes belongs into the state",
    )


def _check_zeros(method: Method, dtype: torch.dtype, kind: type[Optimizer]) -> None:
    where = f"{type(method).__name__}, {dtype}, {kind.__name__}"
    loop = _Loop(method, dtype, kind)
    places = {name: weight.data_ptr() for name, weight in loop.weights.items()}
    loop.train(range(2 * _STEPS))
    loop.pruner.hard_prune()
    loop.train(range(2 * _STEPS, 3 * _STEPS), updates=False)
    for name, weight in loop.weights.items():
        zeros, promised = int((weight == 0).sum()), weight.numel() // 2
        require(zeros == promised, f"{where}: {name} has {zeros} zeros, promised are {promised}")
        require(weight.dtype == dtype, f"{where}: {name} has become {weight.dtype}")
        require(
            weight.data_ptr() == places[name],
            f"{where}: {name} has moved in memory; write in place",
        )


def _check_resume(method: Method, steps: int) -> None:
    first = _Loop(method)
    first.train(range(steps))
    buffer = io.BytesIO()
    torch.save(
        [first.model.state_dict(), first.optimizer.state_dict(), first.pruner.state_dict()], buffer
    )
    buffer.seek(0)
    weights, moments, state = torch.load(buffer, weights_only=True)
    second = _Loop(method)
    second.model.load_state_dict(weights)
    second.optimizer.load_state_dict(moments)
    second.pruner.load_state_dict(state)
    for loop in (first, second):
        loop.train(range(steps, 4 * _STEPS))
        loop.pruner.hard_prune()
    for name, weight in first.weights.items():
        require(
            torch.equal(weight, second.weights[name]),
            f"{type(method).__name__}: saved after {steps} steps of {_STEPS} an outer iteration, loaded and continued, "
            f"{name} differs; everything that changes belongs into the state",
        )


def _check_refusal(method: Method) -> None:
    loop = _Loop(method)
    loop.train(range(_STEPS))
    before = _copied(loop.pruner)
    next(iter(loop.weights.values())).view(-1)[0] = math.nan
    try:
        loop.pruner.update(task_loss=1.0)
    except NonFiniteError:
        pass
    else:
        raise AssertionError(
            f"{type(method).__name__}: update() accepts a weight that is NaN; call problem.check_weights() first"
        )
    for kind, value in _copied(loop.pruner).items():
        require(
            torch.equal(value, before[kind]),
            f"{type(method).__name__}: an update that was refused has changed {kind}",
        )


def _copied(pruner: Pruner) -> dict[str, Tensor]:
    state = pruner.state_dict()["state"]
    tensors = {f"{k} of {n}": v.clone() for k, t in state["tensors"].items() for n, v in t.items()}
    return tensors | {name: torch.tensor(value) for name, value in state["scalars"].items()}
