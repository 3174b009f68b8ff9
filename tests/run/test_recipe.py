"""Recipes: typed, every unknown key refused with path and nearest key, YAML equals Python."""

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_recipe import TINY

import detprune as dp
from command_line import detprune_here
from detprune.files import dump_yaml_text, parse_yaml
from detprune.methods import METHODS
from detprune.run.adapter import implementation, load_recipe
from detprune.run.directory import RunDirectory
from detprune.run.recipe import dump_yaml, override, read_yaml, validate
from detprune.run.recipe.components import parse_method
from detprune.run.studies.planned import PlannedRun
from detprune.run.studies.progressive.spec import Progressive
from detprune.run.studies.study.spec import Study
from detprune.run.studies.study.study_runs import plan_study
from detprune.sets import SETS
from detprune_classification import ClassificationRecipe
from detprune_classification.recipe import DataSpec, ModelSpec
from detprune_lightning.recipe import Stages
from detprune_lightning.spec import ConstrainedSpec, OptimizerSpec, StageSpec, TrainerSpec

ALL = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
STUDIES = [path for path in ALL if path.parent.name == "studies"]
PROGRESSIVE = [path for path in ALL if path.parent.name == "progressive"]
CONFIGS = [path for path in ALL if path not in (*STUDIES, *PROGRESSIVE)]


@pytest.mark.slow
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_in_configs_can_be_planned(path: Path, tmp_path: Path) -> None:
    study = Study.read(path)
    dense, cells = plan_study(study, tmp_path, [])
    assert study.name == path.stem
    assert len(dense) == len(study.labels) * len(study.seeds)
    rates = sum(len(study.rates_of(label)) for label in study.labels)
    assert len(cells) == len(study.methods) * rates * len(study.seeds)


@pytest.mark.parametrize("path", PROGRESSIVE, ids=lambda path: path.stem)
def test_every_progressive_pruning_in_configs_has_a_valid_recipe(path: Path) -> None:
    spec = Progressive.read(path)
    assert spec.name == path.stem
    _, recipe = load_recipe(spec.recipe, [spec.settings])
    assert recipe.pruning_epochs > 0


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_in_configs_is_valid_and_survives_its_own_dump(path: Path) -> None:
    values = read_yaml(path)
    kind = implementation(values["task"]).recipe
    assert kind is not None
    recipe = validate(kind, values)
    assert recipe.name == path.stem
    again = validate(kind, yaml.safe_load(dump_yaml(recipe)))
    assert again == recipe
    assert dump_yaml(again) == dump_yaml(recipe)


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"method": {"name": "admm", "rho": rho}}
            for rho in (
                0.1,
                "auto",
                {"growth": {"start": 0.01, "factor": 1.5}},
                {"growth": {"start": 0.01, "factor": 1.5, "maximum": None}},
                {"growth": {"maximum": math.inf}},
                {"growth": {"maximum": 5.0}},
                {"pull": {"start": 0.5}},
            )
        ),
        {"method": {"name": "admm", "ramp": 0.5, "free_support": True, "penalty": "gradient"}},
        {"method": {"name": "slr", "M": 100, "r": 0.2, "max_step": 1, "step_rule": "printed"}},
        {"method": {"name": "slr", "rho": 0.1, "step_size": 0.01}},
        {"method": {"name": "sas_admm", "l1": 0.1, "average_from": 3}},
        {"method": {"name": "dpf", "every": 4}},
        {"method": {"name": "gradual_magnitude", "ramp": 0.9, "every": 1}},
        *({"set": name} for name in SETS if name != "block"),
        {"set": {"name": "block", "rows": 4, "columns": 2}},
        {"set": {"name": "pattern", "kernel": [3, 3], "patterns": [[0, 1, 3, 4], [1, 2, 4, 5]]}},
        {"set": {"name": "n_m", "n": 1, "m": 4}},
        {"set": {"name": "coupled_channels", "round_to": 4}, "budget": {"parameters": 0.4}},
        {"set": "coupled_channels", "budget": {"latency": 0.5, "target": {"threads": 2}}},
        {"set": "coupled_channels", "budget": {"latency": 0.5, "target": {"table": "t.yaml"}}},
        {"budget": {"sparsity": 0.5, "allocation": {"*conv1*": 0.3}, "exclude": ["layer3*"]}},
        {"budget": {"compression": 4, "scope": "global", "include": ["*weight"]}},
    ],
    ids=str,
)
def test_every_option_of_a_component_survives_the_dump(
    tiny: dict[str, Any], changes: dict[str, Any]
) -> None:
    recipe = validate(ClassificationRecipe, {**tiny, **changes})
    again = validate(ClassificationRecipe, yaml.safe_load(dump_yaml(recipe)))
    assert again == recipe
    assert dump_yaml(again) == dump_yaml(recipe)


def test_there_are_recipes() -> None:
    assert len(CONFIGS) >= 9


def test_yaml_equals_python(tiny: dict[str, Any]) -> None:
    built = ClassificationRecipe(
        task="classification",
        name="tiny",
        seed=3,
        measure=False,
        model=ModelSpec(name="cifar_resnet20"),
        data=DataSpec(name="digits", batch_size=32, train_limit=160, test_limit=100),
        method=dp.SLR(rho=dp.Pull(0.3, 3.0)),
        set=dp.Unstructured(),
        budget=dp.Budget(compression=10),
        stages=Stages(
            dense=StageSpec(epochs=3, optimizer=OptimizerSpec(lr=0.1)),
            constrained=ConstrainedSpec(
                epochs=3, every=0.5, check_every=2, optimizer=OptimizerSpec(lr=0.02)
            ),
            retrain=StageSpec(epochs=3, optimizer=OptimizerSpec(lr=0.02)),
        ),
        trainer=TrainerSpec(accelerator="cpu", devices=1, progress_bar=False),
    )
    assert validate(ClassificationRecipe, tiny) == built


@pytest.mark.parametrize(
    ("written", "method"),
    [
        ("slr", dp.SLR(rho="auto")),
        ({"name": "admm", "ramp": 0.5}, dp.ADMM(rho="auto", ramp=0.5)),
        ({"name": "admm", "rho": 0.1}, dp.ADMM(rho=0.1)),
        ("magnitude", dp.Magnitude()),
    ],
)
def test_rho_is_chosen_by_pull_unless_a_recipe_says_otherwise(
    tiny: dict[str, Any], written: object, method: dp.Method
) -> None:
    assert validate(ClassificationRecipe, {**tiny, "method": written}).method == method


@pytest.mark.parametrize(
    ("assignment", "text"),
    [
        ("sed=1", r"unknown key sed \(did you mean 'seed'\?\)"),
        ("data.batchsize=1", r"unknown key data.batchsize \(did you mean 'batch_size'\?\)"),
        (
            "stages.retrain.optimizer.learning_rate=1",
            r"unknown key stages.retrain.optimizer.learning_rate; known here: name, lr",
        ),
        ("method.roh=1", r"unknown key method.roh \(did you mean 'rho'\?\); known: rho, ramp"),
        ("method.rho.pul.start=1", r"method.rho is .*allowed are a number, auto"),
        ("method.rho={pull: {begin: 1}}", r"unknown key method.rho.pull.begin; known: start, end"),
        (
            "stages.dense.optimizer.weight_decay=1.0e+300",
            r"optimizer.weight_decay: 1e\+300 is out of range",
        ),
        ("method=slrr", r"unknown method 'slrr' \(did you mean 'slr'\?\)"),
        ("method.rho=-1", r"method: rho is -1.*allowed is a finite number > 0"),
        ("method.M=many", r"method.M: .*valid number.* got 'many'"),
        ("method=7", r"method is 7; write its name"),
        ("set=nm", r"unknown set 'nm' \(did you mean 'n_m'\?\)"),
        ("set={name: n_m, n: 5, m: 4}", r"n:m is 5:4, allowed is 1 ≤ n ≤ m"),
        ("budget.sparsity=0.5", r"both sparsity=0.5 and compression=10"),
        ("budget={sparsity: 1.0}", r"sparsity is 1.0, allowed is 0 ≤ sparsity < 1"),
        ("budget={compression: 0.5}", r"compression is 0.5, allowed is 1 or more"),
        ("budget.compresion=2", r"unknown key budget.compresion \(did you mean 'compression'\?\)"),
        ("budget={include: conv1, sparsity: 0.5}", r"budget.include"),
        (
            "model.name=cifar_resnet21",
            r"unknown model 'cifar_resnet21' \(did you mean 'cifar_resnet",
        ),
        ("data.name=digit", r"unknown data set 'digit' \(did you mean 'digits'\?\)"),
        (
            "stages.constrained.epochs=-1",
            r"stages.constrained.epochs: .*greater than or equal to 0",
        ),
        ("stages.dense=null", r"no dense baseline: give stages.dense .* or model.weights"),
        ("name=../up", r"name: "),
        (
            "name=1.10",
            r"name: .*, got 1\.1; a text that YAML takes for .* stands in quotes, as in '1\.10'",
        ),
        ("name=on", r"name: .*, got True; a text .* stands in quotes"),
        ("distillation=0.5", r"distillation is 0.5, but must be a mapping with keys: weight, temp"),
        (
            "stages.dense=off",
            r"stages.dense is False, .*, warmup, evaluate_every; null leaves it out",
        ),
        ("distillation=no", r"distillation is False, .*; null leaves it out"),
        ("stages.retrain=no", r"stages.retrain is False, .*evaluate_every$"),
        ("stages.retrain=5", r"stages.retrain is 5, but must be a mapping with keys: epochs, opt"),
        ("trainer=[1]", r"trainer is \[1\], but must be a mapping with keys: accelerator"),
    ],
)
def test_mistakes_are_named(tiny: dict[str, Any], assignment: str, text: str) -> None:
    with pytest.raises(dp.InputError, match=text):
        validate(ClassificationRecipe, override(tiny, [assignment]))


def test_adam_takes_a_pull_past_it_and_not_through_the_gradient(tiny: dict[str, Any]) -> None:
    adam = "stages.constrained.optimizer.name=adam"
    validate(ClassificationRecipe, override(tiny, [adam, "method={name: slr, rho: auto}"]))
    through = override(tiny, [adam, "method={name: slr, penalty: gradient}"])
    with pytest.raises(dp.InputError, match=r"rho is chosen by pull.*'adam'; leave penalty out"):
        validate(ClassificationRecipe, through)


def test_override_reads_yaml_and_leaves_its_argument_alone(tiny: dict[str, Any]) -> None:
    tiny["set"] = "n_m"
    changed = override(tiny, ["set.n=1", "budget={compression: 4}", "data.augment=false"])
    assert changed["set"] == {"name": "n_m", "n": 1}
    assert changed["budget"] == {"compression": 4}
    assert changed["data"]["augment"] is False
    assert tiny["set"] == "n_m"
    assert "augment" not in tiny["data"]
    assert validate(ClassificationRecipe, changed).set == dp.NM(1, 4)


@pytest.mark.parametrize("assignment", ["seed", "=1", "seed.x=1", "seed=[1"])
def test_bad_assignments(tiny: dict[str, Any], assignment: str) -> None:
    with pytest.raises(dp.InputError, match="--set"):
        override(tiny, [assignment])


@pytest.mark.parametrize(
    ("text", "left_out"), [("photos #2", "#2"), ("#2", "#2"), ("[a, b] # c", "# c")]
)
def test_a_value_that_yaml_cuts_off_is_refused(
    tiny: dict[str, Any], text: str, left_out: str
) -> None:
    with pytest.raises(dp.InputError, match=f"ends before '{left_out}', which is a comment"):
        override(tiny, [f"data.root={text}"])


@pytest.mark.parametrize("text", ['"photos #2"', "'a # b # c'", "photos#2", "'#2'"])
def test_a_sharp_between_quotes_or_within_a_word_is_text(tiny: dict[str, Any], text: str) -> None:
    assert override(tiny, [f"data.root={text}"])["data"]["root"] == text.strip("\"'")


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(dp.InputError, match=r"cannot read .*none\.yaml"):
        read_yaml(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1", encoding="utf-8")
    with pytest.raises(dp.InputError, match="not valid YAML"):
        read_yaml(bad)
    bad.write_text("- 1", encoding="utf-8")
    with pytest.raises(dp.InputError, match="holds no mapping"):
        read_yaml(bad)
    empty = tmp_path / "recipe.yaml"
    empty.touch()
    with pytest.raises(dp.InputError, match="is empty; a recipe consists of keys with values"):
        read_yaml(empty)
    bad.write_text("a: !!python/object/apply:os.system [echo owned]", encoding="utf-8")
    with pytest.raises(dp.InputError, match="not valid YAML"):
        read_yaml(bad)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1", "the key 'a' occurs again, after line 1"),
        ("a: [{b: 1, b: 1}]", "line 1, column 12", "the key 'b' occurs again"),
        ("<<: {a: 1}\n<<: {b: 1}", "line 2, column 1", "the key '<<' occurs again"),
        ("a: " + "[" * 3000, "line 1, column 103", "more than 100 levels"),
        ("a: " + "7" * 6000, "line 1, column 4", "a whole number of 6,000 digits"),
        (LAUGHS, "line 5", "more than 100,000 values"),
        ("a: &b [*b]", "line 1, column 8", "'b' contains itself"),
        ("a: 2024-01-01", "line 1, column 4", "in quotes it is text: '2024-01-01'"),
        ("a: 2024-13-45", "line 1, column 4", "is no timestamp"),
        ("a: .inf", "line 1, column 4", "no finite number"),
        ("a: 1e999", "line 1, column 4", "no finite number"),
        ("a: 017", "line 1, column 4", "octal number 15"),
        ("a: 0o17", "line 1, column 4", "octal number 15"),
        ("a: 1:30", "line 1, column 4", "to the base 60"),
        ("a: 1\n\tb: 2", "line 2, column 1", "indent with spaces"),
        ("a: 1\n---\nb: 2", "line 2, column 1", "take out the line ---"),
        ("a: [*.bias]", "line 1, column 6", "with * stands in quotes, for example '*.bias'"),
        ("a: [*bias]", "line 1, column 5", "with * stands in quotes"),
        ("a: @home", "line 1, column 4", "this character stands in quotes"),
        ("a: %h", "line 1, column 4", "this character stands in quotes"),
        ("a: b: c", "line 1, column 5", "a colon and a space in it stands in quotes"),
        ("a: 1\nb=2\n", "line 3, column 1", "a key, a colon, a space and a value make a line"),
        (
            "b:2\na: 1",
            "line 2, column 2",
            "a space follows the colon of a key, here and in the line before",
        ),
        ('a: "C:\\data"', "line 1, column 8", "put the text in single quotes"),
        ("a: {b: 1\nc: 2", "line 2, column 2", "a bracket or quote before it that is not closed"),
        ("a: 'b\n", "line 2, column 1", "a quote that is not closed"),
        ("a: [", "line 1, column 5", "a bracket that is not closed"),
        ("a:\n  b: 1\n   c: 2", "line 3, column 5", "of one mapping are indented alike"),
        ("a:\n  - b\n  c: 1", "line 3, column 3", "dashes of one list, are indented alike"),
        ("a: {{name}}", "line 1, column 5", "begins with {, [ or ? stands in quotes"),
        ("a: > b", "line 1, column 6", "begins with | or > stands in quotes"),
        ("a: & b", "line 1, column 5", "begins with & stands in quotes"),
        ("a:\u00a0@b\nc: 1", "line 2, column 2", "line 1 has a character that looks like a space"),
        ("a: @b\nc:\u00a01", "line 1, column 4", "this character stands in quotes"),
        ("a: !!binary aGk=", "line 1, column 4", "!!binary is not used"),
        ("a: !!python/name:os.system x", "line 1, column 4", "take the tag out"),
        ("a: !env HOME", "line 1, column 4", "take the tag out"),
        ("a: !!int x", "line 1, column 4", "'x' is no int"),
        ("a: 1\nno: 2", "line 2, column 1", "the key no is false"),
        ('a: "\\ud800"', "line 1, column 4", "the character 0xd800"),
        ("a: 1\nb: \x01", "line 2, column 4", "special characters"),
        ("\0\0\0", "line 1, column 1", "a zero byte, as a crash of the system leaves them"),
        ("a:\u00a01\nb: 2", "line 2, column 2", "line 1 has a character that looks like a space"),
        ("a:\n  b:\u20091\n  c: 2", "line 3, column 4", "line 2 has a character that looks"),
        ("a: 1\n\u3000b: 2", "line 2, column 1", "(U+3000, often copied"),
        (
            "- a: 1\n-\u00a0b: 1",
            "line 2, column 1",
            "line 2 has a character that looks like a space",
        ),
    ],
)
def test_yaml_that_is_not_what_it_looks_like(text: str, place: str, problem: str) -> None:
    with pytest.raises(dp.InputError) as caught:
        parse_yaml(text, "recipe.yaml")
    assert f"recipe.yaml, {place}" in str(caught.value)
    assert problem in str(caught.value)


def test_blanks_that_are_no_spaces_may_stand_in_text() -> None:
    text = 'name: "a:\u00a0b"  # no\u00a0fault\nfolder: one\u00a0two'
    assert parse_yaml(text, "recipe.yaml") == {"name": "a:\u00a0b", "folder": "one\u00a0two"}


def test_yaml_in_another_encoding_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(b"a: 1\nb: \xe9")
    with pytest.raises(dp.InputError, match=r"recipe\.yaml, line 2, column 4: the byte 0xe9"):
        read_yaml(file)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(dp.InputError, match="it is a named pipe, not a file"):
        read_yaml(tmp_path / "pipe")


def test_text_and_numbers_survive_their_own_dump() -> None:
    values = [
        "1e-3",
        "017",
        "0o17",
        "1:30",
        "2024-01-01",
        "yes",
        "<<",
        "",
        "#a",
        1e-5,
        1e22,
        None,
        True,
    ]
    assert parse_yaml(dump_yaml_text(values), "") == values
    assert parse_yaml("[1e-3, 1.5e3, 0x1F, 1_000]", "") == [0.001, 1500.0, 31, 1000]
    assert parse_yaml("? a\n: 1\nb: 2", "") == {"a": 1, "b": 2}
    merged = "a: &a {b: 1, c: 1}\nd: {<<: *a, b: 2}"
    assert parse_yaml(merged, "")["d"] == {"b": 2, "c": 1}


def test_a_run_of_an_earlier_version_is_resumed(tiny: dict[str, Any], tmp_path: Path) -> None:
    recipe = validate(ClassificationRecipe, tiny)
    run = RunDirectory.open(tmp_path / "run", recipe, resume=False)
    file = run.path / "recipe.yaml"
    spelled = yaml.safe_load(file.read_text())
    earlier = {**spelled, "trainer": {**spelled["trainer"]}}
    del earlier["distillation"], earlier["trainer"]["channels_last"]  # as if it had not known them
    file.write_text(yaml.safe_dump(earlier))
    planned = PlannedRun(run.path, file, [], recipe)
    planned.check_same()
    planned.check_same(planned.recipe.dense_part)
    RunDirectory.open(run.path, recipe, resume=True)
    assert yaml.safe_load(file.read_text()) == spelled

    for stored in ({**earlier, "distillation": {"weight": 0.5}}, {**earlier, "gone": 1}, [1]):
        file.write_text(yaml.safe_dump(stored))
        with pytest.raises(dp.InputError, match="is not the recipe that is to be resumed"):
            RunDirectory.open(run.path, recipe, resume=True)
        with pytest.raises(dp.InputError, match="a run of another recipe"):
            planned.check_same()
    elsewhere = {**spelled, "model": {**spelled["model"], "weights": "old/study/dense.pt"}}
    file.write_text(yaml.safe_dump(elsewhere))  # as in the folder of a study that was moved
    with pytest.raises(
        dp.InputError,
        match=r'\(model\.weights from "old/study/dense\.pt" to null\).*was moved back',
    ):
        planned.check_same()


@pytest.mark.parametrize("name", ["admm", "slr"])
def test_a_method_is_the_same_by_name_and_from_python(name: str) -> None:
    assert parse_method(name) == METHODS[name]()


@pytest.mark.parametrize(
    ("command", "file", "text"),
    [
        ("validate", "study.yaml", r"describes several runs: detprune study .*study\.yaml"),
        ("run", "progressive.yaml", r"describes several runs: detprune progressive"),
        ("study", "tiny.yaml", r"is the recipe of one run: detprune run .*tiny\.yaml"),
        ("progressive", "tiny.yaml", "is the recipe of one run"),
        ("run", "pruned.pt", "not UTF-8.*; a YAML file is wanted here"),
        ("study", "report.html", "allowed are 1,000,000; a YAML file is wanted here"),
    ],
)
def test_a_file_of_another_kind_is_told_with_the_command_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    file: str,
    text: str,
) -> None:
    shared = {"name": "several", "recipe": "tiny.yaml", "rates": [2, 4]}
    contents = {
        "tiny.yaml": yaml.safe_dump(TINY),
        "study.yaml": yaml.safe_dump(shared | {"methods": {"slr": {"method": "slr"}}}),
        "progressive.yaml": yaml.safe_dump(shared),
        "report.html": "<p>" * 400_000,
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    torch.save({"weight": torch.ones(2)}, tmp_path / "pruned.pt")
    assert detprune_here(command, tmp_path / file, monkeypatch=monkeypatch) == 2
    assert re.search(text, capsys.readouterr().err)


@pytest.mark.parametrize("option", [["--out", "~/plan.yaml"], ["--out=~/plan.yaml"]])
def test_a_tilde_that_the_shell_left_is_the_home(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
) -> None:
    """bash leaves it in quotes and in --out=~/x; a folder named ~ was made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home/plan.yaml").write_text("mine", encoding="utf-8")
    (tmp_path / "home/tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
    assert detprune_here("suggest", "~/tiny.yaml", *option, monkeypatch=monkeypatch) == 2
    assert f"{tmp_path}/home/plan.yaml exists already" in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("option", "place"),
    [
        (["tiny.yaml", "--out", ""], "the value of --out"),
        (["tiny.yaml", "--out="], "the value of --out"),
        ([""], "an argument"),
    ],
)
def test_an_empty_argument_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: list[str],
    place: str,
) -> None:
    """--out "$OUT" of a variable that is not set: the run lay in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert detprune_here("run", *option, monkeypatch=monkeypatch) == 2
    assert f"error: {place} is empty, as where a variable of the shell" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
