"""ONNX export: the file computes what PyTorch computes, and exactly the pruned weights are zero."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from tiny_detector import CLASSES, pruned_counts, tiny_detector, write_pruned
from torch import Tensor

from detprune.errors import DetpruneError, InputError, NonFiniteError
from detprune.run.export import onnx_files
from detprune_yolo.export.onnx import ExportCheck, export_onnx, lines_of
from detprune_yolo.export.onnx_checks import count_zeros, write_pad_axes
from detprune_yolo.export.onnx_outputs import compare_outputs
from detprune_yolo.weights.checkpoints import load_model, pruned_checkpoint, save_checkpoint

SIZE = (64, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def masks(folder: Path) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return write_pruned(folder / "pruned.pt")


@pytest.fixture(scope="module")
def check(folder: Path, masks: dict[str, Tensor]) -> ExportCheck:
    return export_onnx(folder / "pruned.pt", folder / "sub" / "net.onnx", imgsz=SIZE, batch=2)


def weights_in(path: Path) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def numpy_masks(masks: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: mask.numpy() for name, mask in masks.items()}


def fused(folder: Path):
    return load_model(folder / "pruned.pt").fuse(verbose=False)


def test_zeros_are_counted_in_the_file(check: ExportCheck, masks: dict[str, Tensor]) -> None:
    pruned = pruned_counts(masks)
    assert {name: layer.zeros for name, layer in check.layers.items()} == pruned
    assert {name: layer.masked for name, layer in check.layers.items()} == pruned
    assert check.zeros == sum(pruned.values())
    assert check.nonzero == sum(int(mask.sum()) for mask in masks.values())
    assert check.absent == ()
    held = weights_in(check.path)
    by_hand = {name: int((held[name] == 0).sum()) for name in masks if name in held}
    assert by_hand
    assert by_hand == {name: pruned[name] for name in by_hand}


def test_a_default_session_gives_what_pytorch_gives(check: ExportCheck, folder: Path) -> None:
    assert check.max_box_difference < 1e-2
    assert check.max_score_difference < 1e-4
    assert check.runtime_note is None
    image = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = fused(folder)(image)[0].numpy()
    session = onnxruntime.InferenceSession(check.path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": image.numpy()})
    assert output.shape[1] == 4 + CLASSES
    np.testing.assert_allclose(output[:, :4], expected[:, :4], rtol=0, atol=1e-2)
    np.testing.assert_allclose(output[:, 4:], expected[:, 4:], rtol=0, atol=1e-4)


def test_without_axes_the_runtime_is_wrong(
    check: ExportCheck, folder: Path, tmp_path: Path
) -> None:
    graph = onnx.load(check.path)
    pad = next(node for node in graph.graph.node if node.op_type == "Pad")
    axes = next(t for t in graph.graph.initializer if t.name == pad.input[3])
    graph.graph.initializer.remove(axes)
    del pad.input[3]
    bare = tmp_path / "bare.onnx"
    onnx.save(graph, bare)
    with pytest.raises(DetpruneError, match=r"differ from PyTorch by .* px in boxes"):
        compare_outputs(bare, fused(folder), 2, SIZE, tolerance=1e-2, safe_padding=True)
    boxes, _, note = compare_outputs(
        bare, fused(folder), 2, SIZE, tolerance=1e-2, safe_padding=False
    )
    assert boxes < 1e-2
    assert note is not None
    assert "disabled_optimizers=['Pad_Fusion']" in note
    assert write_pad_axes(bare)
    assert (
        compare_outputs(bare, fused(folder), 2, SIZE, tolerance=1e-2, safe_padding=True)[2] is None
    )


def test_renamed_and_shared_weights_are_found(
    check: ExportCheck, masks: dict[str, Tensor], folder: Path, tmp_path: Path
) -> None:
    graph = onnx.load(check.path)
    new = {t.name: f"onnx::Conv_{i}" for i, t in enumerate(graph.graph.initializer)}
    for tensor in graph.graph.initializer:
        tensor.name = new[tensor.name]
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = new.get(name, name)
    onnx.save(graph, tmp_path / "renamed.onnx")
    layers, _ = count_zeros(tmp_path / "renamed.onnx", fused(folder), numpy_masks(masks))
    assert {name: layer.zeros for name, layer in layers.items()} == pruned_counts(masks)


@pytest.mark.parametrize("change", ["pruned weight alive", "kept weight dead", "other value"])
def test_changed_weights_are_found_out(
    check: ExportCheck, masks: dict[str, Tensor], folder: Path, tmp_path: Path, change: str
) -> None:
    name = "model.13.conv.weight"
    graph = onnx.load(check.path)
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    kept = masks[name].numpy()
    index = tuple(np.argwhere(~kept if change == "pruned weight alive" else kept)[0])
    weight[index] = {"pruned weight alive": 1e-6, "kept weight dead": 0.0, "other value": 7.0}[
        change
    ]
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    onnx.save(graph, tmp_path / "changed.onnx")
    with pytest.raises(DetpruneError, match=f"no weights equal to {name} with the same zeros"):
        count_zeros(tmp_path / "changed.onnx", fused(folder), numpy_masks(masks))


def test_masks_that_say_more_than_the_zeros(
    check: ExportCheck, masks: dict[str, Tensor], folder: Path
) -> None:
    name = next(iter(masks))
    wrong = {name: np.zeros(tuple(masks[name].shape), dtype=bool)}
    alive = int(masks[name].sum())
    with pytest.raises(DetpruneError, match=f"{name}: {alive} pruned weights are not zero"):
        count_zeros(check.path, fused(folder), wrong)
    with pytest.raises(DetpruneError, match=r"model\.3\.gone\.weight was merged"):
        count_zeros(check.path, fused(folder), {"model.3.gone.weight": wrong[name]})
    _, absent = count_zeros(check.path, fused(folder), {"model.20.one.weight": wrong[name]})
    assert absent == ("model.20.one.weight",)


def test_old_opset_without_simplifying(folder: Path, tmp_path: Path, masks) -> None:
    weights, out = folder / "pruned.pt", tmp_path / "pruned.onnx"
    check = export_onnx(weights, out, imgsz=SIZE, opset=17, simplify=False, dynamic=True)
    lines = lines_of(check, weights)
    total = sum(mask.numel() for mask in masks.values())
    zeros = sum(pruned_counts(masks).values())
    assert lines[0].startswith(f"{zeros:,} of {total:,} weights in {len(masks)} layers are zero")
    assert "disabled_optimizers=['Pad_Fusion']" in lines[-1]
    graph = onnx.load(tmp_path / "pruned.onnx")
    assert graph.opset_import[0].version == 17
    session = onnxruntime.InferenceSession(
        tmp_path / "pruned.onnx",
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["Pad_Fusion"],
    )
    image = torch.rand(1, 3, 96, 32)  # another size than exported
    (output,) = session.run(None, {"images": image.numpy()})
    with torch.no_grad():
        expected = fused(folder)(image)[0].numpy()
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-2)


def test_nothing_is_written_when_a_check_fails(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "dense.pt", pruned_checkpoint(tiny_detector(), None))
    with pytest.raises(DetpruneError, match="allowed: 0"):
        export_onnx(tmp_path / "dense.pt", tmp_path / "net.onnx", imgsz=64, tolerance=0.0)
    assert [p.name for p in tmp_path.iterdir()] == ["dense.pt"]


def test_a_network_with_nan_is_named(tmp_path: Path) -> None:
    write_pruned(tmp_path / "good.pt")
    saved = torch.load(tmp_path / "good.pt", weights_only=False)  # we save none with NaN
    with torch.no_grad():
        saved["model"].model[2].conv.weight[0, 0, 0, 0] = float("nan")
    torch.save(saved, tmp_path / "nan.pt")
    with pytest.raises(NonFiniteError, match=r"nan\.pt holds NaN .* in model\.2\.conv\.weight"):
        export_onnx(tmp_path / "nan.pt", tmp_path / "net.onnx", imgsz=SIZE)
    assert not (tmp_path / "net.onnx").exists()


def test_refusals(folder: Path, masks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, out = folder / "pruned.pt", tmp_path / "net.onnx"
    with pytest.raises(InputError, match=r"imgsz is 100; .* stride 32"):
        export_onnx(weights, out, imgsz=100)
    with pytest.raises(InputError, match=r"has to end in \.onnx"):
        export_onnx(weights, tmp_path / "net.pt", imgsz=64)
    with pytest.raises(InputError, match="batch is 0"):
        export_onnx(weights, out, imgsz=64, batch=0)
    with pytest.raises(InputError, match="no file"):
        export_onnx(tmp_path / "none.pt", out, imgsz=64)
    monkeypatch.setattr(
        onnx_files, "find_spec", lambda name: None if name == "onnxslim" else object()
    )
    with pytest.raises(InputError, match=r"needs onnxslim, .*pip install 'detprune\[yolo\]'"):
        export_onnx(weights, out, imgsz=64)
    assert not out.exists()
