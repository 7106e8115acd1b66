"""Builds the documentation as a site: ``make docs``.

The pages are those that people read in the repository. What is generated when a site is built is
not kept (`docs/reference/generated`): the interface from docstrings, the command line from Typer.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from _reference import write_reference  # noqa: E402

write_reference(HERE / "reference" / "generated")

project = "distreal-dse"
author = "The distreal-dse developers"
copyright = author  # noqa: A001
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_*"]

# Links to headings are those that GitHub makes.
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # "csv" has no colours

# A name in backticks in a docstring leads to its description, where there is one.
default_role = "py:obj"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = True
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = project


def setup(app):
    """Leave out members that others wrote: they have descriptions of their own, elsewhere."""
    app.connect("autodoc-skip-member", _written_elsewhere)


def _written_elsewhere(app, what, name, member, skip, options):
    home = getattr(member, "__module__", None) or type(member).__module__
    return True if home.partition(".")[0] in ("torch", "sqlalchemy") else None
