"""A fake but consistent run directory for the tests of the report; nothing is trained."""

import json
from pathlib import Path
from typing import Any

import torch


def fake_run(path: Path, depth: int = 4, width: int = 8, constrained: int = 3) -> dict[str, Any]:
    """Write a run directory whose files agree with one another; return its summary."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv1.weight": (width, 3, 3, 3)}
    for index in range(depth - 2):
        shapes[f"layer{index // 3 + 1}.{index % 3}.conv.weight"] = (width, width, 3, 3)
    shapes["fc.weight"] = (10, width)
    dense = {
        name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()
    } | {"bn1.weight": torch.ones(width)}
    layers, pruned = [], dict(dense)
    for name, shape in shapes.items():
        weight = dense[name].clone()
        nonzero = weight.numel()
        if name != "fc.weight":
            nonzero = round(weight.numel() / 10)
            order = weight.abs().flatten().argsort(descending=True)
            weight.view(-1)[order[nonzero:]] = 0.0
        pruned[name] = weight
        layer = {"name": name, "shape": list(shape), "numel": weight.numel()}
        layers.append(layer | {"nonzero": nonzero, "pruned": name != "fc.weight"})
    total = sum(y["numel"] for y in layers if y["pruned"])
    kept = sum(y["nonzero"] for y in layers if y["pruned"])
    everything = sum(tensor.numel() for tensor in dense.values())
    remaining = sum(int(tensor.count_nonzero()) for tensor in pruned.values())
    summary = {
        "task": "classification",
        "model": "cifar_resnet20",
        "data": "digits",
        "method": "slr",
        "set": "unstructured",
        "metric": "accuracy",
        "dense": 0.9812,
        "hard_pruned": 0.9503,
        "final": 0.9761,
        "compression": total / kept,
        "sparsity": 1 - kept / total,
        "model_compression": everything / remaining,
        "model_sparsity": 1 - remaining / everything,
        "layers": layers,
        "epochs": {"dense": 3, "constrained": constrained, "retrain": 2},
        "seconds": {"dense": 12.0, "constrained": 75.2, "retrain": 4.0, "total": 91.2},
        "seed": 0,
        "versions": {"detprune": "0.1.0", "torch": "2.6.0", "python": "3.11.9"},
        "verified": {"path": "pruned.pt", "nonzero": kept, "metric": 0.9761},
        "command": "detprune run configs/classification/digits.yaml",
    }
    events: list[dict[str, Any]] = []
    for stage, epochs in (("dense", 3), ("constrained", constrained), ("retrain", 2)):
        for epoch in range(1, epochs + 1):
            event = {"event": "epoch", "stage": stage, "epoch": epoch, "epochs": epochs}
            curve = {"train_loss": 2.0 / epoch, "lr": 0.05, "metric": 1 - 0.3 / epoch}
            events.append(event | curve | {"seconds": 1.0})
            if stage != "constrained":
                continue
            outer = {"event": "outer", "stage": stage, "k": epoch, "epoch": epoch}
            norms = {"residual_norm": 3.0 / epoch, "relative_residual": 0.5 / epoch}
            steps = {"target_change": 1.0 / epoch, "step_size": 0.01 / epoch, "rho": 0.1}
            met = {"condition_3": True, "condition_8": epoch % 2 == 0}
            losses = {"task_loss": 0.5, "penalty": 0.01}
            events.append(outer | norms | steps | met | losses)
            check = {"event": "hard_prune_check", "stage": stage, "epoch": epoch}
            events.append(check | {"metric": 0.9 - 0.3 / epoch})
    events.append({"event": "stage", "stage": "final", "metric": 0.9761})
    (path / "checkpoints").mkdir(parents=True)
    torch.save(dense, path / "checkpoints" / "dense.pt")
    torch.save(pruned, path / "checkpoints" / "final.pt")
    torch.save({"a task's own": "format"}, path / "pruned.pt")
    (path / "recipe.yaml").write_text("method: slr\n", encoding="utf-8")
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    write_summary(path, summary)
    return summary


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def edit_summary(path: Path, **changes: Any) -> None:
    content = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    write_summary(path, content | changes)


def only_events(path: Path, *kinds: str) -> None:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    chosen = [line for line in lines if json.loads(line)["event"] in kinds]
    (path / "metrics.jsonl").write_text("".join(line + "\n" for line in chosen))
