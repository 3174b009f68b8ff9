"""Loading checkpoints: accepted layouts, refused files, and what the refusal says."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.parametrize import remove_parametrizations

from detprune.errors import InputError
from detprune_classification.models import build_model, load_checkpoint


@pytest.fixture
def source() -> nn.Module:
    torch.manual_seed(1)
    model = build_model("cifar_resnet20", 10)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
    return model


@pytest.fixture
def target() -> nn.Module:
    torch.manual_seed(2)
    return build_model("cifar_resnet20", 10)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_same(model: nn.Module, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key


def refused(model: nn.Module, path: Path) -> str:
    """Return the text of the refusal, having checked that it left the model as it was."""
    before = snapshot(model)
    with pytest.raises(InputError) as caught:
        load_checkpoint(model, path)
    assert_same(model, before)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [
        (None, ""),
        (None, "module."),
        (None, "_orig_mod."),
        ("state_dict", "network."),
        ("state_dict", "model."),
        ("model", "module._orig_mod."),
        ("model", "_orig_mod.module."),
        ("ema", "module.model."),
        ("state_dict_ema", ""),
        ("model_ema", "module."),
        ("model_state_dict", "module."),
        ("net", ""),
        ("weights", "backbone.body."),
    ],
)
def test_layouts(
    source: nn.Module, target: nn.Module, tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    state = {prefix + key: tensor for key, tensor in source.state_dict().items()}
    content = state if wrapper is None else {"epoch": 3, "best_prec1": 91.7, wrapper: state}
    torch.save(content, tmp_path / "c.th")
    load_checkpoint(target, tmp_path / "c.th")
    assert_same(target, snapshot(source))


def test_plain_weights_go_before_averaged_ones_and_it_is_said(
    source: nn.Module, target: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {f"module.{key}": tensor for key, tensor in source.state_dict().items()}
    averaged = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    torch.save({"ema": {"module": averaged}, "optimizer": {}, "net": state}, tmp_path / "c.th")
    load_checkpoint(target, tmp_path / "c.th")
    assert_same(target, snapshot(source))
    assert "took the weights under 'net', names with 'module.' before them" in caplog.text
    assert "there are also 'ema.module'" in caplog.text


def test_two_networks_in_a_file_are_refused(
    source: nn.Module, target: nn.Module, tmp_path: Path
) -> None:
    state = source.state_dict()
    both = {f"{name}.{key}": v for name in ("student", "teacher") for key, v in state.items()}
    torch.save(both, tmp_path / "c.th")
    text = refused(target, tmp_path / "c.th")
    assert "holds 2 networks that fit, with 'student.', 'teacher.' before their names" in text


def test_tensors_behind_several_prefixes_are_named_with_what_takes_them_off(
    source: nn.Module, target: nn.Module, tmp_path: Path
) -> None:
    # OpenMMLab's classifiers are of this form
    weights = source.state_dict()
    state = {
        f"{'head' if n.startswith('linear') else 'backbone'}.{n}": v for n, v in weights.items()
    }
    torch.save({"meta": {"epoch": 3}, "state_dict": state}, tmp_path / "c.pth")
    text = refused(target, tmp_path / "c.pth")
    assert "linear.weight is head.linear.weight in the file" in text
    code = text.split("torch.save(")[1].split(", path)")[0]
    torch.save(eval(code, {"state": state}), tmp_path / "d.pth")
    load_checkpoint(target, tmp_path / "d.pth")
    assert_same(target, snapshot(source))


def test_what_stands_beside_the_network_is_left_out_and_named(
    source: nn.Module, target: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {f"net.{key}": tensor for key, tensor in source.state_dict().items()}
    torch.save({**state, "criterion.weight": torch.ones(10)}, tmp_path / "c.th")
    load_checkpoint(target, tmp_path / "c.th")
    assert_same(target, snapshot(source))
    assert "ignored weights that the network lacks: criterion.weight" in caplog.text


def test_masks_are_no_weights(target: nn.Module, tmp_path: Path) -> None:
    masks = {key: torch.ones_like(v, dtype=torch.bool) for key, v in target.state_dict().items()}
    torch.save({"masks": masks}, tmp_path / "pruner.pt")
    assert "none of the network's weights, but a dict with 'masks'" in refused(
        target, tmp_path / "pruner.pt"
    )


def test_a_wrapped_module_with_its_metadata(
    source: nn.Module, target: nn.Module, tmp_path: Path
) -> None:
    wrapped = nn.ModuleDict({"module": source})
    torch.save({"state_dict": wrapped.state_dict()}, tmp_path / "c.th")
    load_checkpoint(target, str(tmp_path / "c.th"))
    assert_same(target, snapshot(source))


def test_batch_norm_counters_may_be_missing(
    source: nn.Module, target: nn.Module, tmp_path: Path
) -> None:
    old = {k: v for k, v in source.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "c.th")
    load_checkpoint(target, tmp_path / "c.th")
    assert_same(target, snapshot(source))


def test_a_prefix_that_is_the_models_own_stays(tmp_path: Path) -> None:
    source, target = (nn.ModuleDict({"model": nn.Linear(2, 2)}) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "c.th")
    load_checkpoint(target, tmp_path / "c.th")
    assert_same(target, snapshot(source))


def test_all_that_does_not_fit_is_listed(
    source: nn.Module, target: nn.Module, tmp_path: Path
) -> None:
    state = dict(source.state_dict())
    for key in ("conv1.weight", "layer1.0.conv1.weight"):
        del state[key]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(11)}
    state["linear.weight"] = torch.zeros(100, 64)
    torch.save(state, tmp_path / "c.th")
    text = refused(target, tmp_path / "c.th")
    assert "does not fit CifarResNet (116 tensors)" in text
    assert "2 missing from the file: conv1.weight, layer1.0.conv1.weight\n" in text
    extras = ", ".join(f"extra.{i}" for i in range(8))
    assert f"11 unknown to the model: {extras}, and 3 more\n" in text
    shapes = "linear.weight (100, 64) in the file, (10, 64) in the model"
    assert f"1 of another shape: {shapes}\n" in text


def test_another_depth_is_refused(target: nn.Module, tmp_path: Path) -> None:
    torch.save(build_model("cifar_resnet32", 10).state_dict(), tmp_path / "c.th")
    text = refused(target, tmp_path / "c.th")
    assert "72 unknown to the model: layer1.3.conv1.weight, " in text
    assert "and 64 more" in text
    assert "missing" not in text


class RunsCode:
    """Pickles as a call that creates a folder: what a malicious checkpoint would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is")
@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to_sparse(), "sparse (sparse_coo)"),
        (lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8), "quantized (qint8)"),
        (lambda value: value.to("meta"), "without values (device meta)"),
        (lambda value: value.to(torch.complex64), "complex"),
    ],
    ids=["sparse", "quantized", "meta", "complex"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(
    source: nn.Module, target: nn.Module, tmp_path: Path, change: Any, kind: str
) -> None:
    state = source.state_dict()
    torch.save({**state, "conv1.weight": change(state["conv1.weight"])}, tmp_path / "c.th")
    text = refused(target, tmp_path / "c.th")
    assert f"no plain numbers: conv1.weight is {kind}; save the weights" in text


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("keep", "made_one", "way_out"),
    [
        (
            lambda m: prune.identity(m, "weight"),
            lambda m: prune.remove(m, "weight"),
            "prune.remove",
        ),
        (nn.utils.weight_norm, nn.utils.remove_weight_norm, "remove_weight_norm"),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm, "remove_spectral_norm"),
        *(
            (keep, lambda m: remove_parametrizations(m, "weight"), "remove_parametrizations")
            for keep in (parametrizations.weight_norm, parametrizations.spectral_norm)
        ),
    ],
    ids=["masks", "old_weight_norm", "old_spectral_norm", "weight_norm", "spectral_norm"],
)
@pytest.mark.parametrize("is_alone", [True, False])
def test_weights_in_parts_are_refused_with_what_makes_one_of_them(
    target: nn.Module, tmp_path: Path, keep: Any, made_one: Any, way_out: str, is_alone: bool
) -> None:
    whole = build_model("cifar_resnet20", 10)
    parted = [m for m in whole.modules() if isinstance(m, nn.Conv2d)]
    for module in parted:
        keep(module)
    state = whole.state_dict()
    if is_alone:
        state = {name: value for name, value in state.items() if name.startswith("conv1")}
    torch.save({"state_dict": state}, tmp_path / "c.th")
    text = refused(target, tmp_path / "c.th")
    assert "c.th holds weights in parts: conv1." in text
    assert f"{way_out}(module" in text
    for module in parted:
        made_one(module)
    assert f"torch.nn.utils.{'parametrize' if 'parametrize' in text else ''}" in text
    torch.save(whole.state_dict(), tmp_path / "plain.th")
    load_checkpoint(target, tmp_path / "plain.th")


@pytest.mark.parametrize("raw", [False, True], ids=["torch.save", "pickle"])
def test_a_checkpoint_with_code_is_refused_unopened(
    target: nn.Module, tmp_path: Path, raw: bool
) -> None:
    path, marker = tmp_path / "c.th", tmp_path / "ran"
    content = {"state_dict": RunsCode(marker)}
    if raw:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    text = refused(target, path)
    assert f"refused to open {path}: safe loading allows tensors and plain values" in text
    assert f"this file would run {os.name}.mkdir; where it was written, save" in text
    # torch's own message advises to switch the protection off.
    assert "weights_only" not in text
    assert not marker.exists()
    # A careless loader does run this content, so the check above can fail.
    if raw:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world, no checkpoint at all " * 9, b"PK\x03\x04 cut off", bytes(range(256))],
    ids=["empty", "text", "cut zip", "bytes"],
)
def test_garbage_is_refused(target: nn.Module, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.th").write_bytes(content)
    assert "cannot be opened: it is empty, damaged, of another format or holds more" in refused(
        target, tmp_path / "c.th"
    )


@pytest.mark.parametrize("protocol", [4, 5])  # below, the code that it would run is named
def test_a_plain_pickle_is_named(
    source: nn.Module, target: nn.Module, tmp_path: Path, protocol: int
) -> None:
    content = pickle.dumps(dict(source.state_dict()), protocol=protocol)
    (tmp_path / "net.pkl").write_bytes(content)
    text = refused(target, tmp_path / "net.pkl")
    assert "is a pickle that torch.save did not write" in text
    assert "torch.save(net.state_dict(), path)" in text
    assert "damaged" not in text


@pytest.mark.parametrize("keep", [0.1, 0.5])
def test_a_truncated_file_of_the_old_format_is_damaged(
    source: nn.Module, target: nn.Module, tmp_path: Path, keep: float
) -> None:
    torch.save(source.state_dict(), tmp_path / "c.th", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "c.th").read_bytes()
    (tmp_path / "c.th").write_bytes(whole[: int(len(whole) * keep)])
    assert "damaged, of another format or holds more" in refused(target, tmp_path / "c.th")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(
    source: nn.Module, target: nn.Module, tmp_path: Path, keep: float
) -> None:
    torch.save(source.state_dict(), tmp_path / "c.th")
    whole = (tmp_path / "c.th").read_bytes()
    (tmp_path / "c.th").write_bytes(whole[: int(len(whole) * keep)])
    assert "cannot be opened: it is empty, damaged, of another format or holds more" in refused(
        target, tmp_path / "c.th"
    )


def test_a_missing_file_and_a_folder_are_refused(target: nn.Module, tmp_path: Path) -> None:
    assert "there is no file" in refused(target, tmp_path / "none.th")
    text = refused(target, tmp_path)
    assert "is a folder; give a checkpoint of the same network" in text
    assert "in it" not in text  # it may hold none
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert "is a device, pipe or socket and no file" in refused(target, tmp_path / "pipe")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds nothing; give a checkpoint"),
        (
            {"epoch": 3, "lr": 0.1},
            "none of the network's weights, but a dict with 'epoch', 'lr'; give",
        ),
        ({"state_dict": {"conv1.weight": 1}}, "but a dict with 'state_dict'; give"),
    ],
)
def test_what_is_no_state_dict_is_refused(
    target: nn.Module, tmp_path: Path, content: object, text: str
) -> None:
    torch.save(content, tmp_path / "c.th")
    assert text in refused(target, tmp_path / "c.th")
