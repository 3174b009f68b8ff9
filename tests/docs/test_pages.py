"""What the pages promise of themselves: complete, short where they say so, and in step with code and results."""

import importlib
import re
from urllib.parse import unquote

import draw_before_after
import fields
import places
import pytest
from doc_pages import PAGES, ROOT

README = PAGES["README.md"].read_text(encoding="utf-8")
RESULTS = PAGES["docs/results.md"].read_text(encoding="utf-8")
FENCES = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def test_every_public_name_is_in_the_api_reference() -> None:
    page = PAGES["docs/reference/api.md"].read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto(?:class|function|exception|data):: (\S+)", page, re.M))
    for name in places.PUBLIC_MODULES:
        module = importlib.import_module(name)
        public = {f"{name}.{each}" for each in getattr(module, "__all__", ())}
        assert public <= documented, f"not in docs/reference/api.md: {sorted(public - documented)}"
        own = {each for each in documented if each.rpartition(".")[0] == name}
        assert own <= public, f"no public names: {sorted(own - public)}"
        assert public or f"automodule:: {name}" in page


def sections(kind: type, path: str) -> dict[str, type]:
    """Every mapping of a recipe: its path → the class behind it."""
    found = {path: kind}
    for key in fields.keys(kind):
        if key.section is not None:
            found |= sections(key.section, f"{path}.{key.name}")
    return found


KINDS = {
    "study": places.STUDY,
    "progressive": places.PROGRESSIVE,
    **places.METHOD_CLASSES,
    **places.SET_CLASSES,
    **places.SCHEDULES,
    "budget": places.BUDGET,
}


def test_every_key_of_a_recipe_has_a_meaning() -> None:
    without = [
        f"{path}.{key.name}"
        for name, top in {**places.recipes(), **KINDS}.items()
        for path, kind in sections(top, name).items()
        for key in fields.keys(kind)
        if not key.meaning
    ]
    assert not without, f"say in the docstring's Attributes what these mean: {without}"


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 10_000


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = FENCES.sub("", PAGES[page].read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = unquote(target).partition("#")
        if file.startswith(("http:", "https:")):
            continue
        linked = (PAGES[page].parent / file).resolve() if file else PAGES[page]
        assert linked.exists(), f"{page} links to {target}"
        if anchor and linked.suffix == ".md":
            content = linked.read_text(encoding="utf-8")
            slugs = {
                slug(title) for title in re.findall(r"^#+ (.*)$", FENCES.sub("", content), re.M)
            }
            labels = set(re.findall(r"^\(([\w-]+)\)=$", content, re.M))
            if "{recipe-reference}" in content:  # which the build writes
                labels |= {"studies", *(f"recipe-{task}" for task in places.recipes())}
            assert anchor in slugs | labels, f"{page} links to {target}"


def slug(title: str) -> str:
    """The anchor of a heading on GitHub and in the built pages."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


WITH_FIGURES = [page for page in PAGES if page.startswith(("README", "docs/how", "docs/guides/"))]


@pytest.mark.parametrize("page", WITH_FIGURES)
def test_figures_stand_in_the_results(page: str) -> None:
    text = FENCES.sub("", PAGES[page].read_text(encoding="utf-8"))
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|Apache-2\.0|AGPL-3\.0|3\.11", "", text)
    for number in re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\.)", text):
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d)", RESULTS), f"{page}: {number}"


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    rows = [line.strip("| ").split(" | ") for line in README.splitlines() if line.startswith("|")]
    demo = [row for row in rows if len(row) == 4 and re.fullmatch(r"[\d.,]+", row[1])]
    accuracies = [row for row in rows if "±" in row[-1]]
    assert (len(demo), len(accuracies)) == (5, 3)
    for row in demo:
        assert f"| {' | '.join(row)} |" in RESULTS
    for *_, one_shot, gradual, admm in accuracies:
        for method, found in (
            ("one-shot", one_shot),
            ("gradual magnitude", gradual),
            ("ADMM", admm),
        ):
            assert re.search(rf"^\|.* {method} \|.*\| {re.escape(found)} \|", RESULTS, re.M), found


def test_every_test_that_a_page_cites_exists() -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    found = {
        name
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)
    }
    for page, path in PAGES.items():
        cited = set(re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8")))
        assert cited <= found, f"{page} cites tests that are not there: {sorted(cited - found)}"


def test_the_picture_shows_the_results() -> None:
    figures = draw_before_after.measured(RESULTS)
    picture = draw_before_after.PICTURE.read_text(encoding="utf-8")
    assert figures["mAP@0.5, %"] == (90.02, 94.18)
    for pair in figures.values():
        for value in pair:  # matplotlib keeps the text of each label in a comment
            assert f"<!-- {value:#.3g} -->" in picture
