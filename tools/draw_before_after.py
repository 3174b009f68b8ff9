"""The README's picture of one network before and after pruning, from the demo's figures in docs/results.md.

python tools/draw_before_after.py
"""

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
RESULTS, PICTURE = ROOT / "docs" / "results.md", ROOT / "docs" / "images" / "before_after.svg"
DENSE, PRUNED = "#8a8f98", "#0b6e99"


def measured(text: str) -> dict[str, tuple[float, float]]:
    """Panel title → (dense, pruned), of the demo as ``docs/results.md`` has it."""
    accuracy = re.search(
        r"mAP@0\.5 was ([\d.]+) % dense, [\d.]+ % at removal and ([\d.]+) % at the end", text
    )
    if accuracy is None:
        raise SystemExit(f"{RESULTS} does not state the demo's mAP@0.5")

    def row(name: str) -> tuple[float, float]:
        found = re.search(
            rf"^\| {re.escape(name)} \| ([\d.,]+) \| ([\d.,]+) \|", text, re.MULTILINE
        )
        if found is None:
            raise SystemExit(f"{RESULTS} has no row {name!r} of the demo")
        dense, pruned = (float(number.replace(",", "")) for number in found.groups())
        return dense, pruned

    return {
        "mAP@0.5, %": (float(accuracy[1]), float(accuracy[2])),
        "MACs, millions": _scaled(row("MACs"), 1e-6),
        "file (.pt), MB": _scaled(row("bytes of .pt"), 1e-6),
        "ONNX Runtime, ms": row("ms in ONNX Runtime"),
    }


def draw(figures: dict[str, tuple[float, float]]) -> None:
    """Draw two bars per panel, dense above pruned, each with its number."""
    mpl.rcParams.update({"svg.hashsalt": "detprune", "font.family": "DejaVu Sans", "font.size": 10})
    figure, panels = plt.subplots(1, len(figures), figsize=(9.6, 1.75), facecolor="white")
    for panel, (title, (dense, pruned)) in zip(panels, figures.items(), strict=True):
        panel.barh([1, 0], [dense, pruned], height=0.62, color=[DENSE, PRUNED])
        for y, value in ((1, dense), (0, pruned)):
            panel.text(
                value * 0.97,
                y,
                f"{value:#.3g}",
                ha="right",
                va="center",
                color="white",
                weight="bold",
            )
        panel.set_title(title, fontsize=10, loc="left", color="#22262b")
        panel.set_xlim(0, max(dense, pruned))
        panel.set_xticks([])
        panel.set_yticks([1, 0], ["dense", "pruned"] if panel is panels[0] else ["", ""])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    figure.tight_layout(w_pad=1.6)
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


def _scaled(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return pair[0] * factor, pair[1] * factor


if __name__ == "__main__":
    draw(measured(RESULTS.read_text(encoding="utf-8")))
