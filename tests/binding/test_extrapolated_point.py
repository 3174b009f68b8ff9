"""SAS-ADMM takes gradients at Ŵ; everything else, copies and pickles too, sees W."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core_models import (
    HALF,
    assert_same,
    batches,
    loss_of,
    pruned_weights,
    scalars_of,
    sgd,
    small_net,
    snapshot,
    tensors_of,
    train,
)
from detprune import SASADMM, Pruner

DATA = batches(9)
IMAGES = DATA[-1][0]
NAMES = ("0.weight", "4.weight", "6.weight")


class Run:
    """A model some steps into an outer iteration, where Ŵ differs from W."""

    def __init__(self) -> None:
        self.model = small_net()
        self.optimizer = sgd(self.model)
        self.pruner = Pruner(
            self.model, self.optimizer, SASADMM(beta=0.1, nu=10, inner_steps=5), budget=HALF
        )
        train(self.model, self.optimizer, DATA[:5], self.pruner, update_every=5)
        train(self.model, self.optimizer, DATA[5:7], self.pruner)
        self.weights = snapshot(self.model)
        self.hat = self.ahead()

    def ahead(self) -> dict[str, Tensor]:
        """Ŵ = βₜ W̆ + (1 − βₜ) W of the third step of an outer iteration."""
        assert scalars_of(self.pruner)["t"] == 2
        beta_t = 2 / (3 + 1)
        breve = tensors_of(self.pruner, "momentum_point")
        weights = snapshot(self.model)
        hat = {n: beta_t * breve[n] + (1 - beta_t) * weights[n] for n in NAMES}
        assert all((hat[n] - weights[n]).abs().max() > 1e-4 for n in NAMES)
        return hat

    def assert_at_w(self) -> None:
        """All pruned weights are W, bit by bit."""
        assert_same(pruned_weights(self.model), {n: self.weights[n] for n in NAMES})


@pytest.fixture
def run() -> Run:
    """A fresh run."""
    return Run()


def plain_twin(weights: dict[str, Tensor]) -> nn.Module:
    """The same network without any pruner."""
    twin = small_net()
    twin.load_state_dict(weights)
    return twin


def test_the_gradient_is_taken_at_the_extrapolated_point(run: Run) -> None:
    twin = plain_twin({**run.weights, **run.hat})
    expected = loss_of(twin, DATA[7])
    expected.backward()
    run.optimizer.zero_grad()
    loss = loss_of(run.model, DATA[7])
    for name in NAMES:
        torch.testing.assert_close(run.model.get_parameter(name).detach(), run.hat[name])
    loss.backward()
    torch.testing.assert_close(loss, expected)
    for name, parameter in run.model.named_parameters():
        torch.testing.assert_close(parameter.grad, twin.get_parameter(name).grad)
    run.assert_at_w()


def test_the_optimizer_moves_only_what_is_not_pruned(run: Run) -> None:
    gradients = {}
    loss_of(run.model, DATA[7]).backward()
    for name, parameter in run.model.named_parameters():
        assert parameter.grad is not None
        gradients[name] = parameter.grad
    run.optimizer.step()
    for name, parameter in run.model.named_parameters():
        assert parameter.grad is gradients[name], "the gradient is back after the step"
        assert (parameter in run.optimizer.state) is (name not in NAMES)
        if name != "0.bias":  # the norm behind it takes its gradient away
            assert not torch.equal(parameter, run.weights[name])


def test_a_weight_without_gradient_stays(run: Run) -> None:
    run.optimizer.zero_grad()
    loss_of(run.model, DATA[7]).backward()
    run.model.get_parameter("4.weight").grad = None
    breve = tensors_of(run.pruner, "momentum_point")["4.weight"].clone()
    run.optimizer.step()
    assert torch.equal(run.model.get_parameter("4.weight"), run.weights["4.weight"])
    assert torch.equal(tensors_of(run.pruner, "momentum_point")["4.weight"], breve)
    assert not torch.equal(run.model.get_parameter("6.weight"), run.weights["6.weight"])
    assert scalars_of(run.pruner)["t"] == 3


def test_evaluation_state_dict_and_the_time_after_backward_see_w(run: Run) -> None:
    twin = plain_twin(run.weights).eval()
    loss_of(run.model, DATA[7])  # no backward: Ŵ stays in the weights
    assert not torch.equal(run.model.get_parameter("4.weight"), run.weights["4.weight"])
    run.model.eval()
    buffers = dict(run.model.named_buffers())
    twin.load_state_dict({**run.weights, **buffers})
    assert torch.equal(run.model(IMAGES), twin(IMAGES))
    run.assert_at_w()

    run.model.train()
    loss_of(run.model, DATA[7])
    state = run.model.state_dict()
    assert_same({n: state[n] for n in NAMES}, {n: run.weights[n] for n in NAMES})

    loss_of(run.model, DATA[7])
    inner_state = run.model[4].state_dict()
    assert torch.equal(inner_state["weight"], run.weights["4.weight"])
    run.assert_at_w()

    loss_of(run.model, DATA[7])
    with torch.no_grad():
        run.model(IMAGES)
    run.assert_at_w()


def test_a_loss_without_backward_is_restored_at_the_next_step(run: Run) -> None:
    calm = Run()
    for model, optimizer, disturb in (
        (run.model, run.optimizer, True),
        (calm.model, calm.optimizer, False),
    ):
        model[1].eval()  # its running mean would see the extra forward
        optimizer.zero_grad()
        loss_of(model, DATA[7]).backward()
        if disturb:
            loss_of(model, DATA[8])
        optimizer.step()
    assert_same(snapshot(run.model), snapshot(calm.model))


@pytest.mark.parametrize("what", ["update", "hard_pruned_copy", "hard_prune", "detach"])
def test_a_loss_without_backward_is_restored_before_anything_else(run: Run, what: str) -> None:
    calm = Run()
    results = []
    for one, disturb in ((run, True), (calm, False)):
        one.model[1].eval()
        if disturb:
            loss_of(one.model, DATA[8])
        result = getattr(one.pruner, what)()
        results.append(snapshot(result if isinstance(result, nn.Module) else one.model))
    assert_same(results[0], results[1])


def assert_inert(clone: nn.Module, run: Run) -> None:
    """A copy computes at W, in training too, and neither moves its weights nor the original's."""
    clone.eval()
    assert torch.equal(clone(IMAGES), plain_twin(snapshot(clone)).eval()(IMAGES))
    assert_same(pruned_weights(clone), {n: run.weights[n] for n in NAMES})
    clone.train()
    loss = loss_of(clone, DATA[7])
    assert_same(pruned_weights(clone), {n: run.weights[n] for n in NAMES})
    run.assert_at_w()
    loss.backward()
    clone.state_dict()
    assert_same(pruned_weights(clone), {n: run.weights[n] for n in NAMES})
    run.assert_at_w()
    grads = [parameter.grad for parameter in run.model.parameters()]
    assert all(grad is None or not grad.any() for grad in grads)


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "deepcopy of a deepcopy"])
def test_copies_and_pickles_are_inert(run: Run, how: str) -> None:
    run.optimizer.zero_grad()
    if how == "pickle":
        clone = pickle.loads(pickle.dumps(run.model))
    elif how == "torch.save":
        buffer = io.BytesIO()
        torch.save(run.model, buffer)
        buffer.seek(0)
        clone = torch.load(buffer, weights_only=False)
    else:
        clone = copy.deepcopy(run.model)
        if how == "deepcopy of a deepcopy":
            clone = pickle.loads(pickle.dumps(copy.deepcopy(clone)))
    assert_inert(clone, run)
    test_the_gradient_is_taken_at_the_extrapolated_point(run)


WITHOUT_DETPRUNE = """
import pickle, sys
sys.modules["detprune"] = None
import torch
torch.set_num_threads(1)
model, images = pickle.load(open(sys.argv[1], "rb"))
before = model[4].weight.detach().clone()
model(images).sum().backward()
assert torch.equal(model[4].weight, before)
model.state_dict()
torch.save(model.eval()(images).detach(), sys.argv[2])
try:
    import detprune
except ImportError:
    print("without detprune")
"""


def test_unpickling_does_not_need_detprune(run: Run, tmp_path: Path) -> None:
    run.model[1].eval()
    pickled = pickle.dumps((run.model, IMAGES))
    assert b"detprune" not in pickled
    (tmp_path / "model.pkl").write_bytes(pickled)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DETPRUNE, tmp_path / "model.pkl", tmp_path / "out.pt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "without detprune"
    expected = plain_twin(run.weights).eval()(IMAGES)
    torch.testing.assert_close(torch.load(tmp_path / "out.pt", weights_only=True), expected)
