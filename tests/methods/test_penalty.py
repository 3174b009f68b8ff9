"""The per-step penalty: right in every memory format and dtype, and without temporaries."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import detprune as dp
from core_models import batches, small_net, train
from detprune.methods.penalty import add_pull, pull_towards


class Allocations(TorchDispatchMode):
    """Largest storage, in elements, that any operation returned and that was not there before."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if (
                isinstance(value, torch.Tensor)
                and value.untyped_storage().data_ptr() not in self.known
            ):
                self.largest = max(
                    self.largest, value.untyped_storage().nbytes() // value.element_size()
                )
        return result


FORMATS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.to(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_that_is_converted_in_the_middle_goes_on(dtype: torch.dtype) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = dp.ADMM(rho=0.5, free_support=True)
    pruner = dp.Pruner(model, optimizer, method, budget=dp.Budget(sparsity=0.5))
    train(model, optimizer, batches(2), pruner, update_every=2)
    model.to(dtype)
    train(model, optimizer, batches(2, dtype), pruner, update_every=2)
    pruner.hard_prune()
    assert {layer.weight.dtype for layer in pruner.layers} == {dtype}
    assert pruner.summary().sparsity == 0.5


@pytest.mark.parametrize("grad_format", FORMATS)
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_adds_rho_times_the_gap(grad_format: str, weight_format: str, dtype: torch.dtype) -> None:
    value = torch.randn(6, 5, 3, 3).to(dtype)
    weight = FORMATS[weight_format](value).requires_grad_()
    weight.grad = FORMATS[grad_format](torch.randn(6, 5, 3, 3).to(dtype))
    anchor = torch.randn(6, 5, 3, 3, dtype=torch.promote_types(dtype, torch.float32))
    expected = weight.grad.double() + 0.7 * (weight.detach().double() - anchor.double())
    storage = weight.grad.data_ptr()
    add_pull([weight], [anchor], [0.7])
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(weight.grad.double(), expected, rtol=tolerance, atol=tolerance)
    assert weight.grad.data_ptr() == storage


@pytest.mark.parametrize("anchor_format", FORMATS)
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_pulls_a_share_of_the_gap(
    anchor_format: str, weight_format: str, dtype: torch.dtype
) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    weight = FORMATS[weight_format](torch.randn(6, 5, 3, 3).to(dtype)).requires_grad_()
    frozen = weight.detach().clone()
    anchor = FORMATS[anchor_format](torch.randn(6, 5, 3, 3, dtype=wide))
    expected = 0.7 * weight.detach().double() + 0.3 * anchor.double()
    storage, before = weight.data_ptr(), frozen.clone()
    pull_towards([weight, frozen], [anchor, anchor], [0.3, 0.3])
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(weight.detach().double(), expected, rtol=tolerance, atol=tolerance)
    assert weight.data_ptr() == storage
    assert torch.equal(frozen, before)


@pytest.mark.parametrize("layout", FORMATS)
def test_chunks_meet_without_gap_or_overlap(layout: str) -> None:
    value = torch.randn(90, 41, 19, 17, dtype=torch.float64)
    assert value.numel() > 1 << 20
    weight = FORMATS[layout](value).requires_grad_()
    weight.grad = torch.zeros_like(weight)
    anchor = torch.randn_like(weight.detach())
    add_pull([weight], [anchor], [2.0])
    torch.testing.assert_close(weight.grad, 2 * (weight.detach() - anchor), rtol=1e-12, atol=1e-12)


def test_weights_without_gradient_are_skipped() -> None:
    weight = torch.randn(4).requires_grad_()
    add_pull([weight], [torch.zeros(4)], [1.0])
    assert weight.grad is None


@pytest.mark.parametrize("method", [dp.ADMM(rho=0.1), dp.SLR(rho=0.1), dp.SASADMM()])
@pytest.mark.parametrize("masked", [False, True])
def test_a_step_allocates_nothing_of_weight_size(method: dp.Method, masked: bool) -> None:
    model = torch.nn.Linear(300, 200, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner = dp.Pruner(model, optimizer, method, budget=dp.Budget(compression=10))
    if masked:
        pruner.hard_prune()
    model(torch.randn(2, 300)).square().sum().backward()
    assert model.weight.grad is not None
    tensors = [t for kind in pruner._state.tensors.values() for t in kind]
    outside = pruner._outside or []
    with Allocations(model.weight, model.weight.grad, *tensors, *outside) as allocations:
        pruner._before_step()
        pruner._after_step()
    assert allocations.largest < 100


def test_two_weight_sized_tensors_for_admm_and_slr_three_for_sas_admm() -> None:
    model = torch.nn.Linear(30, 20, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for method, count in (
        (dp.ADMM(rho=0.1), 2),
        (dp.SLR(rho=0.1), 2),
        (dp.SASADMM(), 3),
        (dp.Magnitude(), 0),
    ):
        pruner = dp.Pruner(model, optimizer, method, budget=dp.Budget(compression=10))
        assert len(pruner.state_dict()["state"]["tensors"]) == count
        pruner.detach()
