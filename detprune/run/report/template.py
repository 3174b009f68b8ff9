"""Rendering of the templates in this folder."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(name: str, **values: Any) -> str:
    """Return the page of a template; values are escaped, and a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("detprune.run.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)
