"""Fills the templates that lie beside this file."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """The page of a template; values are escaped, and one that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("detprune.run.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
