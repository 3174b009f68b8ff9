"""The report is built from a fake but consistent run directory; nothing is trained here."""

import base64
import json
import re
import subprocess
import sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from command_line import detprune_here
from detprune.errors import InputError
from detprune.run.report import figures, maps, page, write_report
from detprune.run.report.run_files import read_run
from report_run import edit_summary, fake_run, only_events, write_summary

pytestmark = pytest.mark.slow

FIGURES = [figure.slug for figure in figures.FIGURES]


def embedded(html: str) -> list[bytes]:
    return [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", html)]


def drawn(run: Path) -> list[str]:
    return sorted(file.stem for file in (run / "figures").glob("*.png"))


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare a test of the page's text the time that rasterising the figures takes."""
    monkeypatch.setattr(page, "save", lambda figure, path: path.write_bytes(b"no picture"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    fake_run(tmp_path / "run")
    return tmp_path / "run"


def report(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.mark.usefixtures("words_only")
def test_the_page_shows_the_headline_numbers_with_their_differences(run: Path) -> None:
    path = write_report(run)
    html = path.read_text(encoding="utf-8")
    assert path == run / "report.html"
    for value in ("98.12 %", "95.03 %", "97.61 %", "−3.09", "−0.51", "+2.58"):
        assert value in html
    assert "cifar_resnet20 on digits, pruned 9.91×" in html
    assert "over the pruned tensors" in html
    assert "over all parameters of the model" in html
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['model_compression']:.2f}×" in html
    assert f"{100 * summary['model_sparsity']:.2f} %" in html
    for layer in summary["layers"]:
        assert layer["name"] in html
    assert "left dense" in html
    assert "0.1 (constant)" in html
    assert "constrained training 1 min 15 s" in html
    assert "method: slr" in html


def test_every_figure_is_written_and_embedded(run: Path) -> None:
    html = report(run)
    images = embedded(html)
    assert drawn(run) == sorted(FIGURES)
    assert len(images) == len(FIGURES)
    files = [(run / "figures" / f"{name}.png").read_bytes() for name in FIGURES]
    assert images == files
    for image in images:
        assert image.startswith(b"\x89PNG")
        assert len(image) > 8_000
    assert "Left out" not in html


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.mark.usefixtures("words_only")
def test_the_page_needs_no_scripts_and_no_network(run: Path) -> None:
    parser = _Links()
    parser.feed(report(run))
    assert not {"script", "link", "iframe"} & set(parser.tags)
    assert all(link.startswith("data:image/png;base64,") for link in parser.links)


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert report(run) == report(run)


def test_text_of_the_run_is_escaped_and_dollars_are_no_formula(run: Path) -> None:
    content = json.loads((run / "summary.json").read_text())
    evil = "<script>alert('$x$')</script>"
    content["layers"][0]["name"] = evil
    content["command"] = f"detprune run {evil}"
    for name in ("checkpoints/dense.pt", "checkpoints/final.pt"):
        state = torch.load(run / name, weights_only=True)
        state[evil] = state.pop("conv1.weight")
        torch.save(state, run / name)
    write_summary(run, content)
    html = report(run)
    assert "<script" not in html
    assert html.count(escape(evil).replace("&#x27;", "&#39;")) == 2


@pytest.mark.usefixtures("words_only")
def test_a_metric_that_is_no_accuracy_stays_a_fraction(run: Path) -> None:
    edit_summary(run, metric="f1")
    html = report(run)
    assert "0.9812" in html
    assert "−0.0309" in html
    assert "98.12 %" not in html
    assert "(points)" not in html


@pytest.mark.usefixtures("words_only")
def test_numbers_that_were_not_measured_are_said_to_be_so(run: Path) -> None:
    edit_summary(run, dense=None, verified=None, command=None, seed=None)
    html = report(run)
    assert "not measured" in html
    assert "Not verified" in html
    assert "not set" in html


@pytest.mark.usefixtures("words_only")
def test_verification_agrees_or_says_where_it_does_not(run: Path) -> None:
    assert "Verified: pruned.pt, read back:" in report(run)
    edit_summary(run, verified={"path": "/somewhere/else/pruned.pt", "nonzero": 5, "metric": 0.5})
    html = report(run)
    assert "Verification differs: pruned.pt, read back: 5 nonzero weights but" in html
    assert "accuracy 50.00 % but 97.61 % reported" in html
    assert "somewhere" not in html


@pytest.mark.usefixtures("words_only")
def test_a_layer_table_that_does_not_add_up_is_pointed_out(run: Path) -> None:
    assert "adds up" not in report(run)
    edit_summary(run, sparsity=0.5)
    assert "adds up to a sparsity of 89.91 %, but the run reports 50.00 %" in report(run)


@pytest.mark.usefixtures("words_only")
def test_a_oneshot_run_has_no_outer_iterations(run: Path) -> None:
    only_events(run, "stage")
    edit_summary(run, method="oneshot", epochs={"dense": 0, "constrained": 0, "retrain": 0})
    html = report(run)
    assert drawn(run) == ["heatmap", "histograms", "layers", "maps"]
    assert "one-shot magnitude pruning" in html
    assert "not retrained" in html
    assert "Constraint residual, ρ and step size: no outer iterations in metrics.jsonl." in html
    assert "Training curves: no epochs in metrics.jsonl." in html
    assert "Penalty coefficient" not in html


def test_a_loaded_dense_checkpoint_has_no_dense_epochs(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(x for x in lines if '"dense"' not in x))
    report(run)
    assert drawn(run) == sorted(FIGURES)


@pytest.mark.usefixtures("words_only")
def test_what_is_absent_is_left_out_and_named(run: Path) -> None:
    report(run)
    for name in ("metrics.jsonl", "recipe.yaml", "checkpoints/dense.pt", "checkpoints/final.pt"):
        (run / name).unlink()
    html = report(run)
    # The figures of the earlier report are gone as well.
    assert drawn(run) == ["layers"]
    assert len(embedded(html)) == 1
    assert "Training curves: no epochs because there is no metrics.jsonl." in html
    assert (
        "One layer before and after: no checkpoints/dense.pt and no checkpoints/final.pt." in html
    )
    assert "Resolved recipe" not in html


@pytest.mark.usefixtures("words_only")
def test_without_the_dense_checkpoint_the_rest_is_there(run: Path) -> None:
    (run / "checkpoints/dense.pt").unlink()
    html = report(run)
    assert drawn(run) == ["hard_pruning", "layers", "residual", "training"]
    assert "Weights before and after: no checkpoints/dense.pt." in html


@pytest.mark.usefixtures("words_only")
def test_a_cut_off_last_line_and_unknown_events_are_ignored(run: Path) -> None:
    clean = read_run(run)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event":"from_a_later_version"}\n{"event":"epoch","stage":"ret')
    assert read_run(run) == clean
    assert "could not be read" not in report(run)


@pytest.mark.usefixtures("words_only")
def test_a_damaged_line_further_up_is_pointed_out(run: Path) -> None:
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text('{"event":"epo\n[1]\n' + text)
    assert "metrics.jsonl has lines that could not be read and were left out: 1, 2." in report(run)


def test_epochs_repeated_after_a_resume_count_once(run: Path) -> None:
    clean = read_run(run)
    text = (run / "metrics.jsonl").read_text()
    first = json.loads(text.splitlines()[0])
    again = json.dumps(first | {"metric": 0.123}) + "\n"
    (run / "metrics.jsonl").write_text(text + text)
    assert read_run(run) == clean
    (run / "metrics.jsonl").write_text(text + again)
    assert read_run(run).epochs["dense"][0].metric == 0.123


def test_missing_and_odd_values_do_not_stop_the_report(run: Path) -> None:
    events = [
        {"event": "epoch", "stage": "constrained", "epoch": 1, "metric": None, "train_loss": None},
        {"event": "epoch", "stage": "warm-up", "epoch": 1, "train_loss": -1.0},
        {"event": "outer", "k": 1, "residual_norm": 0.0, "rho": None},
        {"event": "outer", "k": 2, "residual_norm": float("nan"), "relative_residual": 1e-9},
        {"event": "hard_prune_check", "epoch": 1, "metric": None},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    report(run)
    assert drawn(run) == sorted(FIGURES)


def test_a_deep_network_and_long_names_are_summarised(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fake_run(run, depth=110, width=4)
    content = json.loads((run / "summary.json").read_text())
    content["layers"][3]["name"] = "backbone." + "very_long_block_name." * 10 + "weight"
    write_summary(run, content)
    for name in ("checkpoints/dense.pt", "checkpoints/final.pt"):
        (run / name).unlink()
    html = report(run)
    assert content["layers"][3]["name"] in html
    assert html.count('<td class="name">') == 110


@pytest.mark.parametrize(("width", "depth"), [(40, 3), (200, 3), (2, 2)])
def test_layers_of_any_size_have_a_heatmap(tmp_path: Path, width: int, depth: int) -> None:
    fake_run(tmp_path / "run", depth=depth, width=width)
    report(tmp_path / "run")
    assert "heatmap" in drawn(tmp_path / "run")


def test_maps_are_means_over_cells_of_layers_over_the_depth(run: Path) -> None:
    weight = torch.randn(130, 7, 3, 3).numpy()
    matrix = abs(weight.reshape(130, 63))
    values = maps.pooled(weight)
    assert values.shape == (64, 63)
    edges = [i * 130 // 64 for i in range(65)]
    for row in (0, 21, 63):
        cells = matrix[edges[row] : edges[row + 1]].mean(0)
        assert values[row] == pytest.approx(cells, rel=1e-5)
    assert maps.pooled(torch.ones(5).numpy()).shape == (1, 5)
    layers = read_run(run).pruned
    assert maps.spread(layers, 2) == [layers[0], layers[-1]]
    assert maps.spread(layers, len(layers) + 1) == list(layers)


def test_layers_too_large_for_the_heatmap_are_cropped(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    fake_run(run / "x", depth=2, width=2)
    summary = json.loads((run / "x/summary.json").read_text())
    weight = torch.randn(600, 300)
    layer = {"name": "fc.weight", "shape": [600, 300], "numel": 180_000, "nonzero": 18_000}
    torch.save({"fc.weight": weight}, run / "x/checkpoints/dense.pt")
    torch.save({"fc.weight": weight * (weight.abs() > 1.645)}, run / "x/checkpoints/final.pt")
    write_summary(run / "x", summary | {"layers": [layer | {"pruned": True}]})
    report(run / "x")
    assert "heatmap" in drawn(run / "x")


def test_errors_say_what_was_looked_for_and_what_to_do(tmp_path: Path, run: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere' does not exist.*detprune run"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"summary\.json' is a file; give the directory .*run'"):
        write_report(run / "summary.json")
    (tmp_path / "begun").mkdir()
    with pytest.raises(InputError, match=r"no summary\.json.*`detprune run .*begun --resume`"):
        write_report(tmp_path / "begun")
    (run / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json is not JSON"):
        write_report(run)


def test_missing_and_unusable_keys_are_named_together(run: Path) -> None:
    content = json.loads((run / "summary.json").read_text())
    del content["dense"], content["set"], content["layers"][1]["numel"]
    write_summary(run, content | {"final": "good"})
    message = r"lacks the keys set, dense, layers\[1\]\.numel and .* final is 'good'"
    with pytest.raises(InputError, match=message):
        write_report(run)


def test_an_event_without_its_keys_is_an_error_with_its_line(run: Path) -> None:
    (run / "metrics.jsonl").write_text('\n{"event":"epoch","epoch":1}\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl' line 2 lacks the keys stage"):
        write_report(run)


def test_numbers_that_count_nothing_are_refused(run: Path) -> None:
    """Figures cannot hold them."""
    text = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(
        f'{{"event":"epoch","stage":"dense","epoch":1{"0" * 400}}}\n{text}'
    )
    with pytest.raises(InputError, match=r"line 1 has .* epoch is a whole number of 1329 bits"):
        write_report(run)
    (run / "metrics.jsonl").write_text(text)
    content = json.loads((run / "summary.json").read_text())
    content["layers"][1]["numel"] = 10**30
    write_summary(run, content)
    with pytest.raises(InputError, match=r"layers\[1\]\.numel is a whole number of 100 bits"):
        write_report(run)


@pytest.mark.parametrize("stage", ["$\\frac{$", "\x1b[31m\x07"])
def test_a_stage_of_a_later_version_has_any_name(run: Path, stage: str) -> None:
    event = {"event": "epoch", "stage": stage, "epoch": 1, "train_loss": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(event) + "\n")
    report(run)


def test_a_run_that_only_its_owner_may_write(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object, path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(page, "save", refuse)
    assert detprune_here("report", str(run), monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err
    assert "training.png: Permission denied; a report lies in its run's folder, so copy" in said


def test_checkpoints_that_do_not_fit_are_refused(run: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(2)}, run / "checkpoints/final.pt")
    with pytest.raises(InputError, match=r"final\.pt' does not fit.*conv1\.weight, layer1\.0"):
        write_report(run)
    torch.save([1], run / "checkpoints/final.pt")
    with pytest.raises(InputError, match="holds a list without names"):
        write_report(run)
    (run / "checkpoints/final.pt").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"final\.pt cannot be read: .*move it away"):
        write_report(run)


def test_importing_the_report_does_not_load_pyplot() -> None:
    code = "import sys, detprune.run.report; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_pull_stands_beside_rho_or_the_reason_why_it_is_not_known(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fake_run(run)
    write_report(run)
    assert "not known: the penalty goes through" in (run / "report.html").read_text()
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps({**event, "pull": 0.25} if "rho" in event else event) for event in events]
    (run / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
    write_report(run)
    page_now = (run / "report.html").read_text()
    assert "0.25 (constant)" in page_now
    assert "not known: the penalty" not in page_now
    edit_summary(run, method="magnitude")
    only_events(run, "epoch", "stage")
    write_report(run)
    assert "not known: the penalty" not in (run / "report.html").read_text()
