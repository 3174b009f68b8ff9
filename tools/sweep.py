"""Runs a recipe over methods, compression rates and seeds, all from the same dense networks.

    python tools/sweep.py configs/lanes/drawn_tusimple_resnet18.yaml --out runs/sweep \
      --rate 1.82 --rate 35.25 --method '{name: slr, rho: auto}' --method magnitude --seed 0

Every cell is a ``detprune run`` of its own, in a folder of its own: a sweep that is started again
takes up where it was, and a cell that fails does not stop the others. Ends with ``table.md`` and
``curve.png`` in the folder.
"""

import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from detprune.report import style

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.GREY)


@dataclass(frozen=True)
class Cell:
    """One run: a method (as YAML) at a rate, from the dense network of a seed."""

    method: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The method's name."""
        value = yaml.safe_load(self.method)
        return str(value["name"] if isinstance(value, dict) else value)

    @property
    def folder(self) -> str:
        """Name of the run directory."""
        return f"{self.name}_{self.rate:g}x_{self.seed}"


def run(recipe: Path, folder: Path, settings: list[str]) -> bool:
    """Run, or finish, one recipe; whether it succeeded."""
    if (folder / "summary.json").exists():
        return True
    if (folder / "recipe.yaml").exists():
        arguments = ["run", str(folder), "--resume"]
    else:
        sets = [word for setting in settings for word in ("--set", setting)]
        arguments = ["run", str(recipe), "--out", str(folder), *sets]
    typer.echo(shlex.join(["detprune", *arguments]))
    log_file = folder.with_name(f"{folder.name}.log")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("a", encoding="utf-8") as log:
        code = subprocess.call(
            [sys.executable, "-m", "detprune", *arguments], stdout=log, stderr=log
        )
    if code:
        typer.echo(f"failed, see {log_file}", err=True)
    return code == 0


def summary(folder: Path) -> dict[str, Any]:
    """What a finished run found."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def dense_weights(folder: Path) -> Path:
    """The dense network of a run, in the form that recipes take."""
    ultralytics = folder / "checkpoints" / "dense" / "weights" / "best.pt"
    return ultralytics if ultralytics.exists() else folder / "checkpoints" / "dense.pt"


def table(out: Path, cells: list[Cell], seeds: list[int]) -> Iterator[str]:
    """The results as Markdown, in per cent: mean, and each seed where there are several."""
    dense = [100 * summary(out / f"dense_{seed}")["dense"] for seed in seeds]
    first = summary(out / f"dense_{seeds[0]}")
    yield f"{first['model']} on {first['data']}; {first['metric']} in per cent, dense {_cell(dense)}"
    yield ""
    names = list(dict.fromkeys(cell.name for cell in cells))
    stages = ("hard_pruned", "final")
    yield (
        "| rate | " + " | ".join(f"{n} {s.replace('_', '-')}" for s in stages for n in names) + " |"
    )
    yield "| ---: |" + " ---: |" * (len(stages) * len(names))
    for rate in sorted({cell.rate for cell in cells}):
        row = [_values(out, cells, name, rate, stage) for stage in stages for name in names]
        yield f"| {rate:g}× | " + " | ".join(_cell(values) for values in row) + " |"


def _values(out: Path, cells: list[Cell], name: str, rate: float, stage: str) -> list[float]:
    own = [c for c in cells if (c.name, c.rate) == (name, rate)]
    done = [out / c.folder for c in own if (out / c.folder / "summary.json").exists()]
    return [100 * summary(folder)[stage] for folder in done]


def _cell(values: list[float]) -> str:
    if not values:
        return "–"
    listed = f" ({', '.join(f'{v:.2f}' for v in values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{listed}"


def draw(out: Path, cells: list[Cell], seeds: list[int]) -> None:
    """The metric against the compression rate, before and after masked retraining."""
    first = summary(out / f"dense_{seeds[0]}")
    dense = statistics.mean(100 * summary(out / f"dense_{seed}")["dense"] for seed in seeds)
    with style.drawing():
        figure = style.new_figure(3.6)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, stage in zip(panels, ("hard_pruned", "final"), strict=True):
            axes.axhline(dense, color=style.GREY, linestyle=":", label="dense")
            for colour, name in zip(COLOURS, dict.fromkeys(c.name for c in cells), strict=False):
                rates = sorted({cell.rate for cell in cells if cell.name == name})
                points = [(r, _values(out, cells, name, r, stage)) for r in rates]
                shown = [(r, statistics.mean(values)) for r, values in points if values]
                axes.plot(*zip(*shown, strict=True), marker="o", color=colour, label=name)
            axes.set_xscale("log")
            axes.set_xlabel("compression rate")
            axes.set_title("hard-pruned" if stage == "hard_pruned" else "after masked retraining")
        panels[0].set_ylabel(style.metric_label(first["metric"]))
        panels[0].legend()
        style.save(figure, out / "curve.png")


def main(
    recipe: Annotated[Path, typer.Argument(help="The recipe; its method and rate are replaced.")],
    out: Annotated[Path, typer.Option(help="Folder of all runs.")],
    rates: Annotated[list[float], typer.Option("--rate", help="Compression rates.")],
    methods: Annotated[list[str], typer.Option("--method", help="Methods, as in a recipe.")],
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seeds; 0 without it.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For every run.")
    ] = None,
) -> None:
    """Run all cells that are not finished, then draw table and curve."""
    out, seeds, settings = out.absolute(), seeds or [0], settings or []
    cells = [Cell(m, r, s) for s in seeds for r in rates for m in methods]
    complete = True
    for seed in seeds:
        own = [*settings, f"seed={seed}"]
        dense = out / f"dense_{seed}"
        alone = ["method=oneshot", "stages.constrained.epochs=0", "stages.retrain.epochs=0"]
        if not run(recipe, dense, [*own, *alone]):
            raise typer.Exit(1)
        start = [f"model.weights={dense_weights(dense)}", "stages.dense=null"]
        if yaml.safe_load(recipe.read_text(encoding="utf-8"))["task"] == "yolo":
            start[0] = f"model={{weights: {dense_weights(dense)}}}"  # in place of its cfg
        for cell in (c for c in cells if c.seed == seed):
            pruned = [f"method={cell.method}", f"budget.compression={cell.rate}"]
            complete &= run(recipe, out / cell.folder, [*own, *start, *pruned])
    text = "\n".join(table(out, cells, seeds)) + "\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    typer.echo(text)
    draw(out, cells, seeds)
    raise typer.Exit(0 if complete else 1)


if __name__ == "__main__":
    typer.run(main)
