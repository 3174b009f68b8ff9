"""The networks by name: shapes, sizes, copies, early strides, torchvision's names and weights."""

import copy
import pickle
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from detprune.errors import InputError
from detprune_classification.listing import list_models
from detprune_classification.models import MODELS, build_model
from detprune_classification.models.cifar_resnet import OptionAShortcut

CIFAR_RESNETS = {
    "cifar_resnet20": 269_722,
    "cifar_resnet32": 464_154,
    "cifar_resnet44": 658_586,
    "cifar_resnet56": 853_018,
    "cifar_resnet110": 1_727_962,
}
VARIANTS = sorted(MODELS.keys() - CIFAR_RESNETS.keys())


def logits(model: nn.Module, *shape: int) -> Tensor:
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        result: Tensor = model.eval()(images)
    return result


def test_the_registry_holds_the_promised_names() -> None:
    assert set(MODELS) == {
        *CIFAR_RESNETS,
        "cifar_resnet18",
        "cifar_resnet50",
        "cifar_vgg16",
        "cifar_mobilenet_v2",
        "cifar_mobilenet_v3_small",
        "cifar_mobilenet_v3_large",
    }


def test_list_models_describes_ours_and_torchvisions() -> None:
    lines = list_models()
    assert set(lines) == {*MODELS, "torchvision:<any>"}
    assert all(line and "\n" not in line for line in lines.values())


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("in_channels", [1, 3])
def test_a_cifar_image_gives_finite_logits(name: str, in_channels: int) -> None:
    out = logits(build_model(name, 7, in_channels), 2, in_channels, 32, 32)
    assert out.shape == (2, 7)
    assert out.isfinite().all()
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize(("name", "parameters"), CIFAR_RESNETS.items())
def test_cifar_resnets_have_the_published_size(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(name, 10).parameters()) == parameters


@pytest.mark.parametrize("size", [(8, 8), (9, 11), (40, 32)])
def test_a_cifar_resnet_takes_any_size_from_8(size: tuple[int, int]) -> None:
    assert logits(build_model("cifar_resnet20", 10, 1), 2, 1, *size).shape == (2, 10)


def test_a_cifar_resnet_repeats_a_plain_functional_forward() -> None:
    model = build_model("cifar_resnet20", 10).eval()
    state = model.state_dict()

    def conv_bn(x: Tensor, conv: str, bn: str, stride: int) -> Tensor:
        out = functional.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = state[f"{bn}.running_mean"], state[f"{bn}.running_var"]
        return functional.batch_norm(out, mean, var, state[f"{bn}.weight"], state[f"{bn}.bias"])

    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = conv_bn(images, "conv1", "bn1", 1).relu()
    for stage in (1, 2, 3):
        for block in range(3):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = conv_bn(x, f"{at}.conv1", f"{at}.bn1", stride).relu()
            out = conv_bn(out, f"{at}.conv2", f"{at}.bn2", 1)
            if stride == 2:
                zeros = torch.zeros_like(out[:, : out.shape[1] // 4])
                x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
            x = (out + x).relu()
    expected = functional.linear(x.mean((2, 3)), state["linear.weight"], state["linear.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(model(images), expected)


def test_the_option_a_shortcut_strides_and_pads() -> None:
    x = torch.arange(1.0, 19.0).view(1, 2, 3, 3)
    out = OptionAShortcut(2, 4)(x)
    zeros = [[0.0, 0.0], [0.0, 0.0]]
    assert out.tolist() == [[zeros, [[1, 3], [7, 9]], [[10, 12], [16, 18]], zeros]]


@pytest.mark.parametrize("name", ["cifar_resnet20", *VARIANTS])
def test_models_can_be_copied_and_pickled(name: str) -> None:
    model = build_model(name, 10)
    expected = logits(model, 1, 3, 32, 32)
    assert torch.equal(logits(copy.deepcopy(model), 1, 3, 32, 32), expected)
    assert torch.equal(logits(pickle.loads(pickle.dumps(model)), 1, 3, 32, 32), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_last_map_of_a_variant(name: str) -> None:
    model = build_model(name, 10)
    maps: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1):
            module.register_forward_hook(lambda _m, _i, out: maps.append(tuple(out.shape[-2:])))
    logits(model, 1, 3, 32, 32)
    assert maps[0] == (32, 32)
    # VGG's last convolution is still followed by a max-pool.
    assert maps[-1] == ((2, 2) if name == "cifar_vgg16" else (4, 4))


def test_the_first_block_of_mobilenet_v3_small_got_its_residual() -> None:
    block: Any = build_model("cifar_mobilenet_v3_small", 10).eval().get_submodule("features.1")
    x = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(block(x), block.block(x) + x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar_mobilenet_v3_small", "cifar_mobilenet_v3_large"])
def test_statistics_of_mobilenet_v3_follow_within_an_epoch_of_a_small_set(name: str) -> None:
    model, images = build_model(name, 10), torch.randn(16, 3, 32, 32)
    conv, norm, _ = cast("Any", model.get_submodule("features.0"))
    with torch.no_grad():
        for _ in range(40):
            model(images)
        variance = conv(images).var((0, 2, 3))
    torch.testing.assert_close(norm.running_var, variance, rtol=0, atol=0.05)
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vgg16", "cifar_mobilenet_v2"])
def test_seeding_repeats_the_weights(name: str) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(torch.cat([p.detach().flatten() for p in build_model(name, 10).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["squeezenet1_1", "torchvision:squeezenet1_1"])
def test_torchvision_models_go_by_their_own_name(name: str) -> None:
    assert logits(build_model(name, 5, in_channels=1), 2, 1, 64, 64).shape == (2, 5)


def test_googlenet_gives_plain_logits_while_training() -> None:
    out = build_model("googlenet", 5).train()(torch.randn(2, 3, 64, 64))
    assert isinstance(out, Tensor)
    assert out.shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("cifar_resnt110", "cifar_resnet110"),
        ("resnt50", "resnet50"),
        ("torchvision:vgg19bn", "vgg19_bn"),
    ],
)
def test_an_unknown_model_is_refused_with_the_nearest(name: str, close: str) -> None:
    plain = name.removeprefix("torchvision:")
    text = rf"unknown model '{plain}' \(did you mean '{close}'\?\); known: alexnet, cifar_mobilenet"
    with pytest.raises(InputError, match=text):
        build_model(name, 10)


@pytest.mark.parametrize(
    ("classes", "channels", "argument"), [(0, 3, "num_classes"), (10, 0, "in_channels")]
)
def test_sizes_below_1_are_refused(classes: int, channels: int, argument: str) -> None:
    with pytest.raises(InputError, match=f"{argument} is 0; it must be 1 or more"):
        build_model("cifar_resnet20", classes, channels)


def test_weights_from_a_file(tmp_path: Path) -> None:
    source = build_model("cifar_resnet20", 10)
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    loaded = build_model("cifar_resnet20", 10, weights=str(tmp_path / "weights.pt"))
    assert torch.equal(logits(loaded, 1, 3, 32, 32), logits(source, 1, 3, 32, 32))


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_vgg16"])
def test_our_models_have_no_weights_to_download(name: str) -> None:
    with pytest.raises(
        InputError, match=r"weights 'DEFAULT' of model .*: no such file.*checkpoint"
    ):
        build_model(name, 10, weights="DEFAULT")


@pytest.mark.parametrize("name", ["cifar_resnet20", "resnet18"])
def test_a_folder_of_weights_is_named_as_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"is a folder; give the checkpoint file in it"):
        build_model(name, 10, weights=str(tmp_path))


def test_an_unknown_weights_name_lists_the_known() -> None:
    with pytest.raises(InputError) as caught:
        build_model("resnet50", 10, weights="IMAGENET1K_V3")
    text = str(caught.value)
    assert "weights 'IMAGENET1K_V3' of model 'resnet50' (did you mean 'IMAGENET1K_V" in text
    assert "neither one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT nor an existing file" in text


# name: the file that torchvision looks for in the cache, and the prefix of its last layer
FILES = {
    "squeezenet1_1": ("squeezenet1_1-b8a52dc0.pth", "classifier.1"),
    "mobilenet_v3_small": ("mobilenet_v3_small-047dcff4.pth", "classifier.3"),
}


class TestPretrained:
    """torchvision's weights, with torch.hub's cache in a folder of the test and no network."""

    @pytest.fixture(autouse=True)
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        def offline(*_args: object, **_kwargs: object) -> None:
            raise URLError("no network in tests")

        monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
        monkeypatch.setattr("torch.hub.urlopen", offline)
        (tmp_path / "checkpoints").mkdir()
        return tmp_path / "checkpoints"

    @pytest.mark.parametrize("name", sorted(FILES))
    @pytest.mark.parametrize("num_classes", [10, 1000])
    def test_the_classifier_is_replaced_if_need_be(
        self, name: str, num_classes: int, cache: Path
    ) -> None:
        file, classifier = FILES[name]
        source = build_model(name, 1000).state_dict()
        torch.save(source, cache / file)
        model = build_model(name, num_classes, weights="DEFAULT")
        for key, tensor in model.state_dict().items():
            if num_classes == 10 and key.startswith(classifier):
                assert tensor.shape[0] == 10
            else:
                assert torch.equal(tensor, source[key]), key
        assert logits(model, 1, 3, 64, 64).shape == (1, num_classes)

    def test_a_failed_download_says_which_file_to_put_where(self, cache: Path) -> None:
        with pytest.raises(InputError) as caught:
            build_model("squeezenet1_1", 10, weights="IMAGENET1K_V1")
        text = str(caught.value)
        assert "weights IMAGENET1K_V1 of model 'squeezenet1_1' could not be downloaded" in text
        assert "no network in tests" in text
        assert f"put it at {str(cache / 'squeezenet1_1-b8a52dc0.pth')!r}" in text

    def test_a_cached_file_with_code_is_refused(self, cache: Path, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        torch.save({"w": RunsCode(marker)}, cache / FILES["squeezenet1_1"][0])
        with pytest.raises(InputError, match="damaged or would run code"):
            build_model("squeezenet1_1", 10, weights="DEFAULT")
        assert not marker.exists()

    def test_pretrained_weights_take_three_channels(self) -> None:
        with pytest.raises(InputError, match=r"in_channels is 1, but weights 'DEFAULT'.* take 3"):
            build_model("squeezenet1_1", 10, in_channels=1, weights="DEFAULT")


class RunsCode:
    """Pickles as a call that creates a file: what a malicious checkpoint would do."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)
