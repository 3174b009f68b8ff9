"""Every method on a CUDA device: as on the CPU, and with mixed precision."""

import pytest
import torch
from torch import nn

from core_models import METHOD_EXAMPLES, batches, pruned_weights, small_net, train, zeros_in
from detprune import Budget, Method, Pruner

pytestmark = pytest.mark.cuda

DATA = batches(12)
BUDGET = Budget(sparsity=0.5)
methods = pytest.mark.parametrize("method", METHOD_EXAMPLES.values(), ids=METHOD_EXAMPLES)


def trained(method: Method, device: str) -> tuple[nn.Module, Pruner]:
    model = small_net(torch.float64).to(device)
    data = [(images.to(device, torch.float64), labels.to(device)) for images, labels in DATA]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model, optimizer, method, budget=BUDGET)
    train(model, optimizer, data, pruner, update_every=3)
    return model, pruner


@methods
def test_trains_as_on_the_cpu(method: Method) -> None:
    (expected, theirs), (found, ours) = trained(method, "cpu"), trained(method, "cuda")
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name].cpu(), value, msg=name)
    assert [entry.k for entry in ours.history] == [entry.k for entry in theirs.history]
    for there, here in zip(theirs.history, ours.history, strict=True):
        assert here.residual_norm == pytest.approx(there.residual_norm)
    theirs.hard_prune()
    ours.hard_prune()
    for name, mask in (theirs.masks or {}).items():
        assert torch.equal((ours.masks or {})[name].cpu(), mask), name


@methods
def test_a_state_saved_on_the_gpu_goes_on_on_the_cpu(method: Method) -> None:
    model, pruner = trained(method, "cuda")
    other = small_net(torch.float64)
    other.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    moved = Pruner(other, optimizer, method, budget=BUDGET)
    moved.load_state_dict(pruner.state_dict())
    pruner.hard_prune()
    moved.hard_prune()
    for name, weight in pruned_weights(other).items():
        assert torch.equal(weight, pruned_weights(model)[name].cpu()), name


@methods
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("fused", [False, True])
def test_mixed_precision(method: Method, dtype: torch.dtype, fused: bool) -> None:
    model = small_net().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=fused)
    pruner = Pruner(model, optimizer, method, budget=BUDGET)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)

    def steps() -> None:
        for images, labels in DATA:
            optimizer.zero_grad()
            with torch.autocast("cuda", dtype):
                loss = nn.functional.cross_entropy(model(images.cuda()), labels.cuda())
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            pruner.observe(loss)

    for _ in range(4):
        steps()
        pruner.update()
    pruner.hard_prune()
    zeros = zeros_in(pruned_weights(model))
    assert zeros == {name: round(0.5 * w.numel()) for name, w in pruned_weights(model).items()}
    steps()
    assert zeros_in(pruned_weights(model)) == zeros
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
