"""Results of progressive pruning: a table, the lineage as a figure, and a page."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import NullLocator

from detprune.run.metrics import Metric
from detprune.run.report import style
from detprune.run.report.tables import (
    NOTHING,
    Picture,
    Table,
    number,
    report_link,
    write_page,
    write_text,
)
from detprune.run.studies.progressive.lineage import Network
from detprune.run.studies.progressive.spec import Progressive
from detprune.run.studies.spec import rate_name


def write_lineage(
    spec: Progressive, folder: Path, networks: Sequence[Network], best: Sequence[Network]
) -> None:
    """Write ``table.md``, ``results.json``, ``figures/lineage.png`` and ``report.html``.

    Args:
        spec: the progressive pruning.
        folder: folder of all runs; it exists already.
        networks: the dense network, then all that were made of it.
        best: the best of each rate that was reached.
    """
    metric = networks[0].summary.headline
    lines = [
        {
            "folder": network.run.folder.name,
            "rate": network.rate,
            "parent": network.parent and network.parent.run.folder.name,
            "best": network in best,
            **network.numbers,
            "command": network.run.command,
        }
        for network in networks
    ]
    found = {"metric": metric.name, "networks": lines}
    write_text(folder / "results.json", json.dumps(found, indent=1) + "\n")
    title = (
        f"{metric.name} after masked retraining; filled: the best of its rate; thick: its ancestors"
    )
    write_page(
        folder,
        title=spec.name,
        facts=_facts(networks, best),
        tables=[_table(networks, best, metric)],
        heading="Lineage",
        pictures=[Picture(title, _draw(networks, best, metric, folder / "figures"))],
        runs=Table(
            "Runs",
            ["network", "command"],
            [[n.run.folder.name, f"`{n.run.command}`"] for n in networks],
            [report_link(folder, n.run.folder.name) for n in networks],
        ),
    )


def _facts(networks: Sequence[Network], best: Sequence[Network]) -> str:
    dense = networks[0]
    text = f"{dense.summary.model} on {dense.summary.data}. "
    if not best:
        return text + "No run has finished yet."
    each = best[-1].summary.pruning_epochs
    steps = len(best[-1].line) - 1
    return text + (
        f"Every step is {each} epochs of constrained training and masked retraining together; the best "
        f"network at {rate_name(best[-1].rate)}× took {steps} of them, {each * steps} epochs, and all "
        f"{len(networks) - 1} steps that were tried {each * (len(networks) - 1)}. The best child is chosen "
        "by the metric shown. Rates are over the pruned tensors."
    )


def _table(networks: Sequence[Network], best: Sequence[Network], metric: Metric) -> Table:
    scale = metric.scale
    rows = [["dense", NOTHING, NOTHING, number(scale * networks[0].final), NOTHING]]
    rows += [
        [
            f"{rate_name(network.rate)}×",
            f"{rate_name(network.parent.rate)}×"
            if network.parent and network.parent.parent
            else "dense",
            number(scale * (network.summary.hard_pruned or 0.0)),
            number(scale * network.final),
            "yes" if network in best else "no",
        ]
        for network in networks[1:]
    ]
    return Table(
        metric.label, ["rate", "pruned from", "hard-pruned", "final", "best of its rate"], rows
    )


def _draw(
    networks: Sequence[Network], best: Sequence[Network], metric: Metric, folder: Path
) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "lineage.png"
    scale = metric.scale
    chosen = best[-1].line if best else []
    with style.drawing():
        figure = style.new_figure(3.8)
        axes = figure.subplots()
        axes.axhline(scale * networks[0].final, color=style.GREY, linestyle=":", label="dense")
        for network in networks[1:]:
            if network.parent is None:
                continue
            on_line = network in chosen
            axes.plot(
                [network.parent.rate, network.rate],
                [scale * network.parent.final, scale * network.final],
                color=style.BLUE if on_line else style.LIGHT,
                linewidth=2.4 if on_line else 1.2,
                zorder=2 if on_line else 1,
            )
        for network in networks:
            colour = style.BLUE if network in (*chosen, *best) else style.GREY
            axes.plot(
                network.rate,
                scale * network.final,
                marker="o",
                markerfacecolor=colour if network in (networks[0], *best) else "white",
                markeredgecolor=colour,
                zorder=3,
            )
        rates = sorted({network.rate for network in networks})
        axes.set_xscale("log")
        axes.set_xticks(rates, [rate_name(rate) for rate in rates])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("compression rate")
        axes.set_ylabel(style.metric_label(metric))
        axes.legend()
        style.save(figure, file)
    return file
