"""Writes formulas as MathML, which browsers show by themselves: no script, no font from the network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator


def inline(self: HTML5Translator, node: nodes.math) -> None:
    """A formula in a line of text."""
    self.body.append(_converted(node.astext(), block=False))
    raise nodes.SkipNode


def block(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula of its own; the label ``slr-3`` gives it the number 3, which it has in its paper."""
    self.body.append(self.starttag(node, "div", CLASS="equation"))
    self.body.append(_converted(node.astext(), block=True))
    if (number := re.search(r"-(\d+)$", node.get("label") or "")) is not None:
        self.body.append(f'<span class="eqno">({number[1]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>")
    raise nodes.SkipNode


def _converted(tex: str, *, block: bool) -> str:
    try:
        return str(tex2mathml(tex.strip(), as_block=block))
    except MathError as error:
        raise ExtensionError(f"the formula {tex!r} cannot be written as MathML: {error}") from error


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer as ``mathml``."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
