"""The command line: ``detprune prune | init | run | study | suggest | validate | list | measure | profile …``.

Exit codes: 0: done; 1: the run failed (training diverged, or the saved file did not pass its check); 2: bad input;
128 + the signal's number after a signal (Ctrl-C 130, SIGTERM 143).
"""

import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points

import typer

from detprune.errors import DetpruneError, InputError
from detprune.files.storage import plain_refusals
from detprune.loggers import logger
from detprune.run.adapter import load_entry
from detprune.run.cli import first, plan, results, studies
from detprune.run.cli.measure import measure
from detprune.run.cli.profile import profile
from detprune.run.cli.run import run
from detprune.run.cli.signals import exit_on_signals
from detprune.run.cli.streams import prepare_streams
from detprune.run.printable import printable

LOGGER = logger("detprune")

app = typer.Typer(
    help="Constrained pruning (ADMM, SLR) of detectors, lane detectors and classifiers, in their own trainers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_COMMANDS: dict[str, Callable[..., None]] = {
    "prune": first.prune,
    "init": first.init,
    "run": run,
    "study": studies.study,
    "progressive": studies.progressive,
    "suggest": plan.suggest,
    "validate": plan.validate_recipe,
    "list": plan.list_components,
    "report": results.report,
    "export": results.export,
    "measure": measure,
    "profile": profile,
}
for _name, _function in _COMMANDS.items():
    app.command(_name)(_function)

evaluate_app = typer.Typer(
    help="Measure a model or a file of predictions; prints JSON.", no_args_is_help=True
)
app.add_typer(evaluate_app, name="evaluate")
data_app = typer.Typer(help="Draw a synthetic data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")
_GROUPS = {"evaluate": evaluate_app, "data": data_app}


def main() -> None:
    """Entry point of the ``detprune`` command."""
    prepare_streams()
    try:
        with exit_on_signals(), plain_refusals():
            _check_working_directory()
            _check_none_empty(sys.argv[1:])
            sys.argv[1:] = [_with_home(argument) for argument in sys.argv[1:]]
            _add_adapter_commands()
            app()
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        _complain(_unwritable(error), code=2)
    except InputError as error:
        _complain(error, code=2)
    except DetpruneError as error:
        _complain(error, code=1)


def _unwritable(error: UnicodeEncodeError) -> InputError:
    """The error for a name that the locale has no characters for."""
    return InputError(
        f"{error.object!a:.200} has characters that the locale's encoding, {sys.getfilesystemencoding()}, lacks; set "
        "PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8"
    )


def _with_home(argument: str) -> str:
    """The argument with ``~`` replaced, which shells leave in quotes and in ``--out=~/x``: no path is named so."""
    option, equals, value = (
        argument.partition("=") if argument.startswith("--") else ("", "", argument)
    )
    return option + equals + os.path.expanduser(value)


def _check_none_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, as a shell variable that is not set gives: as a path it is the working directory."""
    before = ""
    for argument in arguments:
        option, equals, value = argument.partition("=")
        is_empty_value = option.startswith("--") and equals and not value
        if argument and not is_empty_value:
            before = argument
            continue
        where = option or before
        place = f"the value of {where}" if where.startswith("-") else "an argument"
        raise InputError(
            f"{place} is empty, as where a variable of the shell is not set; give a value, or leave the option out"
        )


def _check_working_directory() -> None:
    """Refuse a working directory that was deleted: frameworks ask for it long after paths were checked."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise InputError(
            "the working directory was deleted or replaced; change to a folder that is there (cd)"
        ) from error


def _add_adapter_commands() -> None:
    """Add the adapters' commands to ``evaluate`` and ``data``; if one of them is called, only that one."""
    group, command = (*sys.argv[1:3], "", "")[:2]
    if group not in _GROUPS:
        return
    entries = sorted(entry_points(group=f"detprune.{group}"), key=lambda entry: entry.name)
    called = [entry for entry in entries if entry.name == command]
    for entry in called or entries:  # all of them together take seconds to import
        try:
            function = load_entry(entry)
        except InputError as error:
            if called:
                raise
            typer.echo(f"{group} {entry.name} is not available: {printable(str(error))}", err=True)
            continue
        _GROUPS[group].command(entry.name)(function)


def _complain(error: DetpruneError, code: int) -> None:
    LOGGER.debug("%s", error)
    typer.echo(f"error: {printable(str(error))}", err=True)
    sys.exit(code)
