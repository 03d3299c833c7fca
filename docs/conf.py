"""Sphinx configuration: Markdown pages, and the public docstrings."""

project = "pyrogen"
author = "The pyrogen authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # pages link to headings of others
source_suffix = {".md": "markdown"}
html_theme = "alabaster"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
