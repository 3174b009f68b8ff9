"""Checkpoints of lane networks, from the original's scripts and for them."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lane_networks import SIZE, State, assert_equal, network, prefixed
from torch import nn

from detprune.errors import InputError
from detprune_lanes.network.checkpoints import (
    checkpoint,
    load_checkpoint,
    read_checkpoint,
)
from detprune_lanes.network.model import LaneNetwork


@pytest.fixture(scope="module")
def source() -> LaneNetwork:
    """With auxiliary branch, of which a part of every layer is pruned."""
    torch.manual_seed(1)
    made = network(use_aux=True)
    with torch.no_grad():
        for name, buffer in made.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(torch.rand_like(parameter) < 0.3)
    return made


@pytest.fixture(scope="module")
def target() -> LaneNetwork:
    return network()


@pytest.fixture(scope="module")
def auxiliary_target() -> LaneNetwork:
    return network(use_aux=True)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file that does not outlive its test: a trunk has 45 MB, and pytest keeps folders."""
    file = tmp_path / "ep099.pth"
    yield file
    file.unlink(missing_ok=True)


def snapshot(model: nn.Module) -> State:
    return {name: value.clone() for name, value in model.state_dict().items()}


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "optimizer": {"state": {0: {"step": 3}}, "param_groups": []}},
        lambda s: {"model": prefixed(s, "module."), "optimizer": {}},
        lambda s: {"model": prefixed(s, "_orig_mod.")},
        lambda s: s,
        lambda s: prefixed(s, "module."),
        lambda s: {"state_dict": prefixed(s, "network."), "epoch": 3},
        lambda s: {"ema": {"module": prefixed(s, "module._orig_mod.")}, "epoch": 3},
        lambda s: {"net": s},
    ],
    ids=[
        "original",
        "data parallel",
        "compiled",
        "bare",
        "bare data parallel",
        "Lightning",
        "averaged",
        "net",
    ],
)
def test_layouts(source: LaneNetwork, path: Path, wrap) -> None:
    state = source.state_dict()
    torch.save(wrap(dict(state)), path)
    read = read_checkpoint(path)
    assert list(read) == list(state)
    assert_equal(read, state)
    other = network(use_aux=True)
    assert load_checkpoint(other, str(path)) == ()
    assert_equal(other.state_dict(), state)


def test_torchs_old_format_and_half_precision(source: LaneNetwork, path: Path) -> None:
    state = {n: v.half() if v.is_floating_point() else v for n, v in source.state_dict().items()}
    torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    other = network(use_aux=True)
    load_checkpoint(other, path)
    assert other.get_parameter("cls.2.weight").dtype == torch.float32
    assert_equal(other.state_dict(), {n: v.to(source.state_dict()[n]) for n, v in state.items()})


def test_batch_norm_counters_may_be_missing(
    source: LaneNetwork, auxiliary_target: LaneNetwork, path: Path
) -> None:
    state = source.state_dict()
    counters = {n for n in state if n.endswith("num_batches_tracked")}
    torch.save({"model": {n: v for n, v in state.items() if n not in counters}}, path)
    assert set(load_checkpoint(auxiliary_target, path)) == counters
    assert_equal(
        auxiliary_target.state_dict(), {n: v for n, v in state.items() if n not in counters}
    )


def test_an_auxiliary_branch_of_the_file_is_left_out(
    source: LaneNetwork, target: LaneNetwork, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model": prefixed(source.state_dict(), "module.")}, path)
    with caplog.at_level(logging.INFO, "detprune.lanes"):
        assert load_checkpoint(target, path) == ()
    assert "its auxiliary branch is not loaded" in caplog.text
    assert_equal(source.state_dict(), target.state_dict())


def test_an_auxiliary_branch_that_the_file_lacks_keeps_its_weights(
    source: LaneNetwork,
    auxiliary_target: LaneNetwork,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch.save(checkpoint(source, drop_aux=True), path)
    before = snapshot(auxiliary_target)
    unset = load_checkpoint(auxiliary_target, path)
    assert unset == tuple(name for name in before if name.startswith("aux_"))
    assert "has no auxiliary branch" in caplog.text
    after = auxiliary_target.state_dict()
    assert_equal(after, {name: before[name] for name in unset})
    assert_equal(after, source.state_dict(), but="aux_")


# ---------------------------------------------------------------- writing


def load_as_the_original_tests(path: Path, use_aux: bool = False) -> LaneNetwork:
    """What the original's test.py does."""
    other = network(use_aux=use_aux)
    state = {}
    for name, value in torch.load(path, map_location="cpu")["model"].items():
        state[name[7:] if "module." in name else name] = value
    result = other.load_state_dict(state, strict=False)
    assert result.missing_keys == []
    return other


@pytest.mark.parametrize("drop_aux", [False, True])
def test_the_originals_scripts_load_ours(source: LaneNetwork, path: Path, drop_aux: bool) -> None:
    written = checkpoint(source, drop_aux=drop_aux)
    assert list(written) == ["model"]
    assert drop_aux == (not any(name.startswith("aux_") for name in written["model"]))
    torch.save(written, path)
    loaded = load_as_the_original_tests(path)
    assert_equal(source.state_dict(), loaded.state_dict())
    for name, weight in loaded.named_parameters():
        if weight.dim() > 1:  # zeros are kept: 70 % of all of them
            zeros = int((weight == 0).sum())
            assert zeros == int((source.get_parameter(name) == 0).sum())
            assert abs(zeros / weight.numel() - 0.7) < 0.05, name


def test_what_is_written_is_a_copy_on_the_cpu(source: LaneNetwork) -> None:
    written = checkpoint(source)["model"]
    assert type(written) is dict
    assert_equal(written, source.state_dict())
    for name, value in written.items():
        assert value.device.type == "cpu"
        assert not value.requires_grad
        assert value.data_ptr() != source.state_dict()[name].data_ptr()


def test_training_goes_on_with_the_optimizer(path: Path) -> None:
    """As the original's ``--resume`` does: the next step is the same, bit by bit."""
    trained = network(use_aux=True)
    optimizer = torch.optim.Adam(trained.parameters(), lr=4e-4, weight_decay=1e-4)
    images = torch.randn(2, 3, *SIZE)

    def step(model: LaneNetwork, its: torch.optim.Optimizer) -> None:
        logits, segmentation = model(images)
        its.zero_grad()
        (logits.square().mean() + segmentation.square().mean()).backward()
        its.step()

    step(trained, optimizer)
    written = checkpoint(trained, optimizer=optimizer)
    assert list(written) == ["model", "optimizer"]
    torch.save(written, path)
    step(trained, optimizer)
    # what was made before that step is not touched by it
    assert {int(entry["step"]) for entry in written["optimizer"]["state"].values()} == {1}
    resumed = load_as_the_original_tests(path, use_aux=True)
    its = torch.optim.Adam(resumed.parameters(), lr=1.0)
    its.load_state_dict(torch.load(path, weights_only=True)["optimizer"])
    step(resumed, its)
    assert_equal(resumed.state_dict(), trained.state_dict())


def test_an_optimizer_of_a_dropped_branch_is_refused(
    source: LaneNetwork, target: LaneNetwork
) -> None:
    with pytest.raises(InputError, match="give drop_aux or optimizer, not both"):
        checkpoint(source, drop_aux=True, optimizer=torch.optim.Adam(source.parameters()))
    both = checkpoint(target, drop_aux=True, optimizer=torch.optim.Adam(target.parameters()))
    assert list(both) == ["model", "optimizer"]
