"""ONNX export: the file computes what PyTorch computes, with exactly the network's zeros."""

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lane_networks import GRID, SIZE, network
from onnx import numpy_helper
from torch import nn

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.run.export import onnx_files
from detprune.run.export.onnx_export import compare_outputs, count_zeros
from detprune_lanes.export import export_lanes
from detprune_lanes.network.model import LaneNetwork


@pytest.fixture(scope="module")
def pruned() -> LaneNetwork:
    """With batch norms as after training, weights pruned to 30 %, one layer to nothing but two alike."""
    torch.manual_seed(0)
    made = network(use_aux=True)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(torch.rand_like(module.weight) < 0.3)
        made.get_parameter("cls.0.weight").mul_(10)
        made.get_parameter("cls.2.weight").mul_(10)
        # of equal weights the exporter keeps one
        for name in ("model.layer1.1.conv1.weight", "model.layer1.1.conv2.weight"):
            made.get_parameter(name).zero_()
    return made


@pytest.fixture(scope="module")
def lines(pruned: LaneNetwork, folder: Path) -> list[str]:
    return export_lanes(pruned, folder / "new" / "lanes.onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="module")
def file(lines: list[str]) -> Path:
    return Path(lines[0])


def deployed_layers(model: LaneNetwork) -> dict[str, np.ndarray]:
    return {
        f"{name}.weight": module.weight.detach().numpy()
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and not name.startswith("aux_")
    }


def test_zeros_are_the_networks(pruned: LaneNetwork, lines: list[str], file: Path) -> None:
    weights = deployed_layers(pruned)
    assert len(weights) == 20 + 1 + 2
    zeros = sum(int((w == 0).sum()) for w in weights.values())
    total = sum(w.size for w in weights.values())
    assert 0.69 < zeros / total < 0.72
    assert lines[2].startswith(
        f"{zeros:,} of {total:,} weights in 23 convolutions and linear layers are zero"
    )
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load(file).graph.initializer}
    by_name = {name: weights[name] for name in held if name in weights}
    assert len(by_name) == 22  # all but one of the two empty ones
    for name, weight in by_name.items():
        np.testing.assert_array_equal(held[name], weight)
    assert not any("aux_" in name for name in held)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_default_session_gives_what_pytorch_gives(
    pruned: LaneNetwork, file: Path, batch: int
) -> None:
    images = torch.randn(batch, 3, *SIZE)
    with torch.no_grad():
        expected = copy.deepcopy(pruned).eval()(images)[0].numpy()
    assert np.abs(expected).max() > 0.2  # ten times what biases alone give
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    assert logits.shape == (batch, GRID.cells + 1, GRID.rows, GRID.lanes)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_what_is_printed(lines: list[str], folder: Path) -> None:
    assert lines[0] == str(folder / "new" / "lanes.onnx")
    assert lines[1] == (
        "images (N, 3, 64, 96), RGB with ImageNet's mean and std → logits (N, 11, 8, 4)"
    )
    assert lines[3].startswith("largest difference between ONNX Runtime and PyTorch: ")
    assert len(lines) == 4
    assert [p.name for p in (folder / "new").iterdir()] == ["lanes.onnx"]


def test_the_network_is_left_alone(tmp_path: Path) -> None:
    """In training, in half precision and channels last: the file is float32 all the same."""
    model = network().to(memory_format=torch.channels_last).half().train()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    random_state = torch.get_rng_state()
    export_lanes(model, tmp_path / "n.onnx")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.stride() == before[name].stride()
    held = {
        i.name: numpy_helper.to_array(i) for i in onnx.load(tmp_path / "n.onnx").graph.initializer
    }
    np.testing.assert_array_equal(
        held["pool.weight"], model.get_parameter("pool.weight").float().detach()
    )
    (tmp_path / "n.onnx").unlink()


@pytest.mark.parametrize("change", ["alive", "dead", "missing"])
def test_changed_weights_are_found_out(
    pruned: LaneNetwork, file: Path, tmp_path: Path, change: str
) -> None:
    name = "cls.2.weight"
    graph = onnx.load(file)
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    place = tuple(np.argwhere((weight == 0) == (change == "alive"))[0])
    weight[place] = {"alive": 1e-30, "dead": 0, "missing": weight[place]}[change]
    tensor.CopyFrom(numpy_helper.from_array(weight, "other" if change == "missing" else name))
    onnx.save(graph, tmp_path / "changed.onnx")
    with pytest.raises(DetpruneError, match=r"cls\.2\.weight in the ONNX file differs from"):
        count_zeros(tmp_path / "changed.onnx", pruned.without_aux())
    (tmp_path / "changed.onnx").unlink()


def test_other_outputs_are_found_out(pruned: LaneNetwork, file: Path) -> None:
    deployed = pruned.without_aux()
    absolute, relative = compare_outputs(file, deployed, (3, *SIZE), tolerance=1e-4)
    assert 0 < relative < 1e-5
    assert absolute < 1e-4
    deployed.get_buffer("model.layer4.1.bn2.running_mean").add_(0.5)
    with pytest.raises(DetpruneError, match=r"differ from PyTorch by .*allowed: 0\.0001"):
        compare_outputs(file, deployed, (3, *SIZE), tolerance=1e-4)
    deployed.get_parameter("cls.2.bias").data[3] = torch.nan
    with pytest.raises(NonFiniteError, match="gives NaN or infinite logits"):
        compare_outputs(file, deployed, (3, *SIZE), tolerance=1e-4)


def test_nothing_is_written_when_a_check_fails(pruned: LaneNetwork, tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"an earlier file")
    with pytest.raises(DetpruneError, match="allowed: 0"):
        export_lanes(pruned, tmp_path / "n.onnx", tolerance=0.0)
    assert [p.name for p in tmp_path.iterdir()] == ["n.onnx"]
    assert (tmp_path / "n.onnx").read_bytes() == b"an earlier file"


def test_refusals(pruned: LaneNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"n\.pt has to end in \.onnx; choose another name"):
        export_lanes(pruned, tmp_path / "n.pt")
    monkeypatch.setattr(
        onnx_files, "find_spec", lambda name: None if name == "onnxruntime" else object()
    )
    with pytest.raises(InputError, match=r"needs onnxruntime, .*pip install 'detprune\[lanes\]'"):
        export_lanes(pruned, tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []
