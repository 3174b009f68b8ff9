"""What a task may add to its run for the report: more metrics, named epochs, notes, pictures."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detprune.errors import InputError
from detprune.run.report import page, training, write_report
from detprune.run.report.run_files import read_run
from report_run import edit_summary, fake_run

pytestmark = pytest.mark.slow

HEADLINE = "mAP@0.5"
OWN = "mAP50 (Ultralytics' own), EMA"
METRICS = {
    "dense": {HEADLINE: 0.9812, "mAP@[.5:.95]": 0.7, "f1": 0.9},
    "hard_pruned": {HEADLINE: 0.9503, "mAP@[.5:.95]": 0.65, "f1": None},
    "final": {HEADLINE: 0.9761, "mAP@[.5:.95]": 0.704, "f1": 0.88},
}
# The page does not look into pictures.
PNG, JPEG = b"\x89PNG", b"\xff\xd8"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a detector; its figures are not rasterised."""
    monkeypatch.setattr(page, "save", lambda figure, path: path.write_bytes(b"no picture"))
    fake_run(tmp_path / "run")
    edit_summary(tmp_path / "run", metric=HEADLINE)
    return tmp_path / "run"


def report(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def cells(html: str, heading: str) -> list[str]:
    row = re.search(f'<tr><th scope="row">{re.escape(heading)}</th>(.*?)</tr>', html)
    assert row, heading
    return re.findall(r"<td[^>]*>(.*?)</td>", row[1])


def name_epochs(run: Path, **changes: Any) -> None:
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = [event | changes if event["event"] == "epoch" else event for event in events]
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def y_labels(figure: Figure) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


def list_pictures(run: Path, content: object) -> Path:
    folder = run / "pictures"
    folder.mkdir()
    (folder / "pictures.json").write_text(json.dumps(content))
    return folder


def test_all_metrics_are_a_table_with_differences_to_dense(run: Path) -> None:
    edit_summary(run, metrics=METRICS)
    html = report(run)
    assert cells(html, HEADLINE) == ["98.12 %", "95.03 %", "97.61 %", "−3.09", "−0.51"]
    assert cells(html, "mAP@[.5:.95]") == ["70.00 %", "65.00 %", "70.40 %", "−5.00", "+0.40"]
    assert cells(html, "f1") == ["0.9000", "not measured", "0.8800", "–", "−0.0200"]
    assert "final against dense (points where in %)" in html
    assert html.index("<h2>Result</h2>") < html.index("<h2>All metrics</h2>")
    assert "among all metrics" not in html


def test_the_headline_comes_first_and_all_per_cent_means_points(run: Path) -> None:
    metrics = {
        stage: {"mAP75": 0.5, HEADLINE: values[HEADLINE]} for stage, values in METRICS.items()
    }
    edit_summary(run, metrics=metrics)
    html = report(run)
    assert html.index(f'<th scope="row">{HEADLINE}') < html.index('<th scope="row">mAP75')
    assert "final against dense (points)</th>" in html


@pytest.mark.parametrize("metrics", [None, {}, {s: {HEADLINE: 0.98} for s in METRICS}])
def test_the_headline_alone_needs_no_second_table(run: Path, metrics: object) -> None:
    edit_summary(run, metrics=metrics, dense=0.98, hard_pruned=0.98, final=0.98)
    assert "All metrics" not in report(run)


def test_metrics_that_contradict_the_result_are_pointed_out(run: Path) -> None:
    edit_summary(run, metrics=METRICS | {"hard_pruned": {HEADLINE: 0.5}})
    message = (
        "The mAP@0.5 of the hard-pruned weights is 95.03 % in the result and 50.00 % among all "
        "metrics."
    )
    assert message in report(run)


def test_notes_are_paragraphs_and_escaped(run: Path) -> None:
    edit_summary(run, notes=["Measured by pycocotools.", "a < b"])
    html = report(run)
    assert "<p>Measured by pycocotools.</p>" in html
    assert "<p>a &lt; b</p>" in html


def test_epochs_in_the_headline_metric_need_no_second_name(run: Path) -> None:
    read = read_run(run)
    curves, hard = training.training_curves(read), training.hard_pruning(read)
    assert curves is not None
    assert hard is not None
    assert y_labels(curves)[1] == "mAP@0.5 (%)"
    assert legend(curves) == ["dense model", "hard-pruned"]
    assert y_labels(hard) == ["mAP@0.5 (%)"]
    assert legend(hard)[0] == "live weights, not pruned"
    assert training.metric_remark(read) == ""


def test_epochs_in_another_metric_are_named_as_such(run: Path) -> None:
    name_epochs(run, metric_name=OWN, losses={"box": 1.0})
    read = read_run(run)
    curves, hard = training.training_curves(read), training.hard_pruning(read)
    assert curves is not None
    assert hard is not None
    assert y_labels(curves) == ["training loss", "mAP50 (Ultralytics' own),\nEMA (%)"]
    assert legend(curves) == ["dense model: mAP@0.5", "hard-pruned: mAP@0.5"]
    assert y_labels(hard) == ["metric (%)"]
    assert legend(hard) == [
        f"not pruned: {OWN}",
        "hard-pruned copy: mAP@0.5",
        "dense model: mAP@0.5",
        "final, after retraining: mAP@0.5",
    ]
    html = report(run)
    assert html.count("The epochs were measured in mAP50 (Ultralytics&#39; own), EMA") == 2


def test_measures_of_different_units_never_share_an_axis(run: Path) -> None:
    name_epochs(run, metric_name="f1")
    read = read_run(run)
    curves, hard = training.training_curves(read), training.hard_pruning(read)
    assert curves is not None
    assert hard is not None
    assert y_labels(curves) == ["training loss", "f1"]
    assert not curves.legends
    retrain: Axes = curves.axes[-1]
    assert retrain.get_ylim()[1] < 1.5  # a dense model at 98.12 is not in there
    assert y_labels(hard) == ["mAP@0.5 (%)"]
    assert all("not pruned" not in label for label in legend(hard))
    assert "has no common axis" in training.metric_remark(read)


def test_pictures_are_embedded_between_result_and_figures(run: Path) -> None:
    picture = {"file": "a.png", "title": "A <b>", "caption": "What is seen."}
    photo = {"file": "b.JPG", "title": "B"}
    folder = list_pictures(run, [picture, photo])
    (folder / "a.png").write_bytes(PNG)
    (folder / "b.JPG").write_bytes(JPEG)
    html = report(run)
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in html
    assert f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}" in html
    assert "<h3>A &lt;b&gt;</h3>" in html
    assert "What is seen." in html
    places = [html.index(f"<h2>{h}</h2>") for h in ("Result", "Pictures", "Figures")]
    assert places == sorted(places)


def test_without_pictures_there_is_no_such_section(run: Path) -> None:
    assert "Pictures" not in report(run)
    list_pictures(run, [])
    assert "Pictures" not in report(run)


def test_a_listed_picture_that_is_missing_is_named(run: Path) -> None:
    list_pictures(run, [{"file": "gone.png", "title": "A", "caption": ""}])
    html = report(run)
    assert "The picture gone.png is listed in pictures/pictures.json, but there is no such" in html
    assert "<h3>A</h3>" not in html


@pytest.mark.parametrize("file", ["../summary.json", "../a.png", "/etc/passwd", "a.svg", ""])
def test_a_picture_is_an_image_in_its_folder(run: Path, file: str) -> None:
    list_pictures(run, [{"file": file, "title": "A", "caption": ""}])
    with pytest.raises(InputError, match=r"names .*; a picture is a \.png, \.jpg, \.jpeg file"):
        write_report(run)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"file": "a.png"}, r"pictures\.json holds .*, not a list of JSON"),
        ([{"title": "A"}], r"pictures\.json' is not a list of objects"),
        (["a.png"], r"pictures\.json' is not a list of objects"),
    ],
)
def test_an_unusable_list_of_pictures_is_refused(run: Path, content: object, message: str) -> None:
    list_pictures(run, content)
    with pytest.raises(InputError, match=message):
        write_report(run)
