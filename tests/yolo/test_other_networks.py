"""Networks that cannot be pruned, and contradicting tasks, are refused before anything is written."""

import copy
import pickle
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import yaml
from task_networks import DESCRIPTIONS, layers_of, start_file
from tiny_detector import tiny_detector
from trainings import OPTIONS, images

import detprune as dp

# isort: split
from detprune_yolo.descriptions import check_network
from detprune_yolo.detectors import check_start, read_layers
from detprune_yolo.kinds import DETECT, POSE
from detprune_yolo.recipe import ModelSpec
from detprune_yolo.training.constrained import constrained
from detprune_yolo.training.task_trainer import _of_kind
from detprune_yolo.training.trainers import RetrainingTrainer
from detprune_yolo.weights.checkpoints import load_model

# isort: split
from ultralytics.nn.tasks import WorldModel, yaml_model_load

OTHERS = [
    *("yolov8s-world.yaml", "yolov8s-worldv2.yaml", "yoloe-11s.yaml", "yoloe-v8s-seg.yaml"),
    *("yoloe-26-seg.yaml", "yolo26n-depth.yaml", "yolo26n-sem.yaml"),
]


@pytest.mark.parametrize("cfg", OTHERS)
def test_other_descriptions(cfg: str) -> None:
    with pytest.raises(ValueError, match=f"{cfg} ends in .*; what can be pruned here"):
        ModelSpec(cfg=cfg)


@pytest.mark.parametrize(
    "cfg", ["yolov3-tiny.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolov9t.yaml"]
)
def test_detectors(cfg: str) -> None:
    assert read_layers(cfg)["head"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "nor a readable file") for text in ("", "- 1", "head: 3", "a: 1")),
        ("backbone: []\nhead: [[1]]", "nor a readable file"),
        ("head: [", r"net\.yaml, line 1, column 8 is not valid YAML"),
        ("head: []\nhead: []", r"net\.yaml, line 2, column 1 is not valid YAML"),
        ("[" * 3000, r"net\.yaml, line 1, .* is not valid YAML"),
    ],
)
def test_descriptions_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "net.yaml").write_text(text)
    with pytest.raises(dp.InputError, match=message):
        read_layers(str(tmp_path / "net.yaml"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "start.pt"
    model = WorldModel(yaml_model_load("yolov8s-world.yaml"), verbose=False)
    model.args = {"task": "detect"}
    torch.save({"model": model}, path)
    return path


def test_a_world_model_is_refused_everywhere(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"start\.pt holds a WorldDetect; .* no YOLO-World and no"):
        ModelSpec(weights=world)
    kinds = (constrained(dp.ADMM(), dp.Budget(compression=2)), RetrainingTrainer)
    for kind in kinds:
        for task in (None, "detect"):
            overrides = {**OPTIONS, "model": str(world), "data": str(images())}
            with pytest.raises(dp.InputError, match="no YOLO-World"):
                kind(overrides={**overrides, "project": str(tmp_path), "task": task})
    assert not list(tmp_path.iterdir())
    model = torch.load(world, weights_only=False)["model"]
    with pytest.raises(dp.InputError, match="it holds a WorldModel, which ends in WorldDetect"):
        check_network(model, "it")


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start_file(tmp_path_factory.mktemp("pose") / "start.pt", "yolov8n-pose")


def test_a_network_is_trained_for_its_own_task_alone(pose: Path, tmp_path: Path) -> None:
    kinds = (constrained(dp.ADMM(), dp.Budget(compression=2)), RetrainingTrainer)
    for kind in kinds:
        overrides = {**OPTIONS, "model": str(pose), "data": str(images())}
        for task in ("detect", "segment"):
            with pytest.raises(
                dp.InputError, match=f"task is '{task}', but .*start.pt is a .* poses?"
            ):
                kind(overrides={**overrides, "project": str(tmp_path), "task": task})
        with pytest.raises(dp.InputError, match="is for the task 'depth'; what can be pruned"):
            kind(overrides={**overrides, "project": str(tmp_path), "task": "depth"})
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        dp.InputError, match=r"task is 'obb', but yolov3-tiny\.yaml is a network for"
    ):
        check_start("yolov3-tiny.yaml", "obb")
    model = load_model(pose)
    model.args["task"] = "obb"
    with pytest.raises(
        dp.InputError, match="PoseModel for the task 'obb', but its head is for pose"
    ):
        check_network(model, "it")


@pytest.mark.parametrize("description", DESCRIPTIONS)
def test_the_trainer_is_made_from_ultralytics_own(description: str) -> None:
    kind = layers_of(description)[1]
    assert check_start(f"{description}.yaml") == kind
    for trainer in (RetrainingTrainer, constrained(dp.ADMM(), dp.Budget(compression=2))):
        made = _of_kind(trainer, kind)
        assert issubclass(made, trainer)
        assert issubclass(made, kind.trainer)
        assert made is _of_kind(trainer, kind)  # one class for all objects
        order = [c.__name__ for c in made.__mro__]
        assert order.index("TaskTrainer") < order.index(kind.trainer.__name__)
        other = pickle.loads(cloudpickle.dumps(made))
        assert other.settings == made.settings
        assert _of_kind(made, copy.copy(kind)) is made  # as in several processes
    with pytest.raises(dp.InputError, match="this trainer was made for"):
        _of_kind(_of_kind(RetrainingTrainer, POSE), DETECT)


CODE = "__import__('pathlib').Path('ran').touch()"


def described(**changes: object) -> dict[str, Any]:
    layers: dict[str, Any] = yaml_model_load("yolov3-tiny.yaml")
    return {**layers, **changes}


@pytest.mark.parametrize(
    "activation",
    [
        *(CODE, f"nn.SiLU() if {CODE} else None", f"nn.ReLU({CODE})", f"nn.Sequential(*[{CODE}])"),
        *("nn.SiLU", "nn.Module.__subclasses__()", "nn.functional.relu(1)", "(" * 2000, 3),
    ],
)
def test_an_activation_is_a_layer_and_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: object
) -> None:
    """Ultralytics evaluates it as Python."""
    monkeypatch.chdir(tmp_path)
    layers = described(activation=activation)
    Path("net.yaml").write_text(yaml.safe_dump(layers), encoding="utf-8")
    with pytest.raises(ValueError, match=r"net\.yaml.*: activation is .* allowed is a layer"):
        ModelSpec(cfg="net.yaml")
    detector = tiny_detector()
    detector.yaml = {**detector.yaml, "activation": activation}
    for check in (lambda: check_network(detector, "start.pt"), lambda: retrained(detector)):
        with pytest.raises(dp.InputError, match=r"activation is .*, which Ultralytics would run"):
            check()
    assert not Path("ran").exists()


def retrained(detector: Any) -> None:
    """What the trainer does with the description of the network it starts with."""
    trainer = object.__new__(RetrainingTrainer)
    trainer.data = {"nc": detector.yaml["nc"], "channels": 3, "names": detector.names}
    trainer.get_model(detector.yaml, detector)


@pytest.mark.parametrize(
    "called",
    [
        *("torch_safe_load", "load_checkpoint", "Path", "eval", "os", "nn.functional", "nn.init"),
        *("DetectionModel", "BaseModel", "torchvision.ops.nms", "torchvision.ops.misc.os.system"),
    ],
)
def test_a_row_calls_a_layer(tmp_path: Path, called: str) -> None:
    """A whole network would be built from another description, which nobody has checked."""
    rows = described()["backbone"]
    layers = described(backbone=[[-1, 1, called, ["file"]], *rows])
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(layers), encoding="utf-8")
    with pytest.raises(dp.InputError, match=r"a row of backbone calls .*, which is no layer"):
        read_layers(str(tmp_path / "net.yaml"))


@pytest.mark.parametrize("arguments", [[], ["DEFAULT", True, 2], [None]])
def test_a_row_downloads_nothing(tmp_path: Path, arguments: list[Any]) -> None:
    rows = described()["backbone"]
    layers = described(backbone=[[-1, 1, "TorchVision", [512, "resnet18", *arguments]], *rows])
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(layers), encoding="utf-8")
    with pytest.raises(dp.InputError, match=r"calls TorchVision, which fetches weights"):
        read_layers(str(tmp_path / "net.yaml"))


def test_ordinary_activations_are_let_through(tmp_path: Path) -> None:
    for activation in ("nn.SiLU()", "torch.nn.LeakyReLU(0.1, inplace=True)", " nn.Hardswish() "):
        (tmp_path / "net.yaml").write_text(yaml.safe_dump(described(activation=activation)))
        assert read_layers(str(tmp_path / "net.yaml"))["activation"] == activation


def test_networks_for_other_images_than_colour_ones(tmp_path: Path) -> None:
    """Ultralytics drops the first layer of such weights in silence, and begins with a new one."""
    cfg = tmp_path / "net.yaml"
    cfg.write_text(yaml.safe_dump(yaml_model_load("yolov8n.yaml") | {"channels": 4}))
    with pytest.raises(ValueError, match=r"takes images of 4 channels, .*colour images here"):
        ModelSpec(cfg=str(cfg))
    network = tiny_detector()
    network.yaml["channels"] = 1
    with pytest.raises(dp.InputError, match="takes images of 1 channels"):
        check_network(network, "the model")
    network.yaml["channels"] = 3
    assert check_network(network, "the model") == DETECT
