"""What is counted and timed of networks, and what is refused; no test looks at a clock."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from detprune import InputError
from detprune.run.measuring import Deployed, deployed, measure_networks
from detprune.run.measuring import measurement as module
from detprune.run.measuring.deployment import sized
from detprune.run.measuring.pairs import Times, in_turn
from detprune.run.measuring.table import measurement_table


def network(width: int = 8) -> nn.Sequential:
    """For (N, 2, 6, 6); 18·width + width weights, then 16·width + 3."""
    return nn.Sequential(
        nn.Conv2d(2, width, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * width, 3)
    ).train()


IMAGES = (torch.zeros(2, 2, 6, 6),)


def test_sizes_are_counted() -> None:
    dense, small = network(8), network(4)
    with torch.no_grad():
        small[0].weight[0] = 0
    before = [p.clone() for n in (dense, small) for p in n.parameters()]
    found = measure_networks(dense, small, IMAGES, pt_bytes=(1000, 400), rounds=3)
    assert found.dense is not None
    for size, width in ((found.dense, 8), (found.pruned, 4)):
        assert size.parameters == 18 * width + width + 3 * 16 * width + 3
        assert size.macs == 2 * (16 * 18 * width + 3 * 16 * width)  # two images
        assert size.onnx_bytes is not None
        assert size.onnx_bytes > 4 * size.parameters
    assert found.dense.nonzero == found.dense.parameters
    assert found.pruned.nonzero == found.pruned.parameters - 18
    assert (found.dense.pt_bytes, found.pruned.pt_bytes) == (1000, 400)
    assert found.shapes == ((2, 2, 6, 6),)
    assert dense.training
    after = [p for n in (dense, small) for p in n.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_runtime_that_is_installed_is_timed() -> None:
    threads = torch.get_num_threads()
    found = measure_networks(network(8), network(4), IMAGES, rounds=4)
    by_name = {latency.runtime: latency for latency in found.latencies}
    assert by_name.keys() == {"PyTorch", "ONNX Runtime", "OpenVINO"}  # TensorRT is for GPUs
    for name in ("PyTorch", "ONNX Runtime"):
        latency = by_name[name]
        assert latency.note is None
        assert latency.rounds == 4
        assert latency.dense_ms is not None
        assert latency.dense_ms > 0
        assert latency.ratio is not None
        assert latency.quartiles is not None
        assert latency.quartiles[0] <= latency.ratio <= latency.quartiles[1]
    assert torch.get_num_threads() == threads
    json.dumps(found.as_dict())


def test_one_network_alone() -> None:
    found = measure_networks(None, network(), IMAGES, rounds=3)
    assert found.dense is None
    first = found.latencies[0]
    assert (first.dense_ms, first.ratio, first.quartiles) == (None, None, None)
    assert first.pruned_ms is not None
    table = measurement_table("alone", found)
    assert [column.header for column in table.columns] == ["", "network"]


class Unexportable(nn.Module):
    """Calls what the exporter does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(self.layer(x) @ self.layer(x).T)


def test_what_cannot_be_exported_is_noted_and_the_rest_is_measured() -> None:
    found = measure_networks(Unexportable(), Unexportable(), (torch.rand(3, 4),), rounds=3)
    assert found.pruned.onnx_bytes is None
    assert found.pruned.macs > 0
    assert len(found.notes) == 1
    assert found.notes[0].startswith("not exported to ONNX: ")
    pytorch, onnx = found.latencies[:2]
    assert pytorch.ratio is not None
    assert onnx.note == "could not be exported to ONNX"
    assert "could not be exported" in str(measurement_table("x", found).columns[1]._cells)


def test_a_runtime_that_fails_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(job: object) -> None:
        raise RuntimeError("no such operator\nsecond line")

    runtime = module.RUNTIMES["ONNX Runtime"]._replace(program=broken)
    monkeypatch.setattr(module, "RUNTIMES", {**module.RUNTIMES, "ONNX Runtime": runtime})
    found = measure_networks(network(8), network(4), IMAGES, rounds=3)
    assert found.latencies[0].ratio is not None
    assert found.latencies[1].note == "failed: no such operator"


def test_ratios_are_those_of_the_same_round() -> None:
    # the machine is ten times slower in one round: it hits both, and the ratio stays
    times = Times(((10.0, 5.0), (100.0, 50.0), (10.0, 6.0), (12.0, 6.0), (10.0, 4.0)))
    assert times.median(0) == 10.0
    assert times.median(1) == 6.0
    assert times.ratios() == pytest.approx((0.5, 0.5, 0.5))
    assert Times(((1.0, 1.0), (1.0, 2.0), (1.0, 3.0))).ratios() == pytest.approx((1.5, 2.0, 2.5))


def test_programs_take_turns_in_beginning() -> None:
    seconds = iter(range(10_000))

    def clock() -> float:
        return float(next(seconds))

    calls: list[str] = []
    times = in_turn(
        (lambda: calls.append("a"), lambda: calls.append("b")),
        rounds=4,
        seconds=math.inf,
        clock=clock,
    )
    assert "".join(calls[4:]) == "abbaabba"  # after two calls of each to warm up
    assert len(times.rounds) == 4
    calls.clear()
    assert (
        len(in_turn((lambda: calls.append("a"),), rounds=99, seconds=0.0, clock=clock).rounds) == 3
    )


@pytest.mark.parametrize(
    ("side", "value", "text"),
    [
        (48, torch.zeros(1, 3, 64, 64), "multiple of the network's stride 32, such as 64"),
        (16, torch.zeros(1, 3, 64, 64), "such as 32"),
        (64, torch.zeros(1, 5), "which is no image; leave --size out"),
        (None, "text", "called with a str; only tensors can be measured"),
        (None, torch.tensor(1.0), "only tensors can be measured"),
        (None, torch.zeros(1, 3, 40, 64), "size is 40"),
    ],
)
def test_sizes_that_do_not_fit(side: int | None, value: object, text: str) -> None:
    plain = network()
    with pytest.raises(InputError, match=text):
        sized(Deployed(plain, plain, stride=32), (value,), side, 1)


def test_the_size_of_a_network_that_takes_one_alone() -> None:
    plain = network()
    only = Deployed(plain, plain, stride=32, size=(64, 96))
    assert sized(only, IMAGES_OF_A_ROAD, None, 3)[0].shape == (3, 3, 64, 96)
    with pytest.raises(InputError, match=r"only takes images of 64 × 96 pixels; leave --size out"):
        sized(only, IMAGES_OF_A_ROAD, 64, 1)


IMAGES_OF_A_ROAD = (torch.zeros(1, 3, 64, 96),)


def test_batches_of_inputs_that_are_no_images() -> None:
    plain = deployed(network())
    tokens, mask = sized(plain, (torch.tensor([[4, 2]]), torch.zeros(1, 2)), None, 3)
    assert tokens.tolist() == [[4, 2]] * 3  # indices stay valid
    assert mask.shape == (3, 2)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("tpu", "give cpu or cuda"),
        ("0", "give cpu or cuda"),
        ("cuda:x", "give cpu or cuda"),
        ("cuda:99", "PyTorch finds"),
    ],
)
def test_devices_that_are_not_there(device: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        measure_networks(None, network(), IMAGES, device=device)


@pytest.mark.parametrize("threads", [0, -1, 100_000])
def test_numbers_of_threads_at_which_runtimes_crash(threads: int) -> None:
    with pytest.raises(
        InputError, match=rf"threads is {threads}; allowed is a whole number from 1"
    ):
        measure_networks(None, network(), IMAGES, threads=threads)


@pytest.mark.parametrize(("side", "batch"), [(32 * 10**6, 1), (None, 10**12)])
def test_inputs_larger_than_the_memory(side: int | None, batch: int) -> None:
    plain = network()
    with pytest.raises(InputError, match=r"has a memory of .*give a smaller size or batch"):
        sized(Deployed(plain, plain, stride=32), (torch.zeros(1, 3, 64, 64),), side, batch)


def test_inputs_on_which_the_network_does_not_run() -> None:
    with pytest.raises(InputError, match=r"does not run on inputs of shape \(1, 2, 9, 9\)"):
        measure_networks(None, network(), (torch.zeros(1, 2, 9, 9),))


def test_half_precision_is_measured_in_single(tmp_path: Path) -> None:
    found = measure_networks(None, network().half(), IMAGES, rounds=3)
    assert found.latencies[0].pruned_ms is not None


def test_attention_is_counted_where_pytorch_has_one_operation_for_it() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x, need_weights=False)[0]

    sizes = measure_networks(None, Attention(), [torch.zeros(1, 5, 8)], rounds=3).pruned
    projections, products = 4 * 5 * 8 * 8, 2 * 5 * 5 * 8
    assert sizes.macs == projections + products
    assert torch.backends.mha.get_fastpath_enabled()
