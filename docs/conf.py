"""How the documentation is built: ``make docs``. Nothing is fetched, neither here nor by the pages."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import places

project = "detprune"
author = "the detprune authors"
release = version = places.VERSION

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
    "mathml",
    "reference",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
suppress_warnings = ["myst.header"]  # generated pages begin below the first level

html_theme = "furo"
html_title = f"detprune {release}"
html_static_path = ["_static"]
html_css_files = ["detprune.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_math_renderer = "mathml"
math_numfig = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
# Types of other packages, whose documentation is on the network, and of ours that have no page
nitpick_ignore_regex = [("py:.*", places.WITHOUT_PAGE)]
