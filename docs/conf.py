"""Sphinx configuration: Markdown pages, a gallery that runs, and one page for each public object."""

import importlib
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
logging.getLogger("pyrogen").setLevel(logging.WARNING)  # Sphinx shows INFO of every logger

project = "pyrogen"
copyright = "the pyrogen authors"
author = "The pyrogen authors"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "formulas",
    "public_names",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4  # pages link to headings of others
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "gallery", "sg_execution_times.rst"]  # the gallery shows its scripts itself
templates_path = ["_templates"]

html_theme = "furo"
html_title = "pyrogen"
html_static_path = ["_static"]
html_css_files = ["pyrogen.css"]
html_show_sourcelink = False
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False
autosummary_ignore_module_all = False

#: Public rooms. An object that several rooms export has its page in the first one.
ROOMS = (
    *("pyrogen", "pyrogen.targets", "pyrogen.events", "pyrogen.flows", "pyrogen.bayes", "pyrogen.inference"),
    *("pyrogen.posterior", "pyrogen.diagnostics", "pyrogen.search", "pyrogen.plotting", "pyrogen.recipes"),
)


def public_pages() -> dict[str, list[str]]:
    """Classes and functions in ``__all__`` of each room but for those of an earlier one. Each has a page."""
    pages: dict[str, list[str]] = {}
    seen: set[int] = set()
    for room in ROOMS:
        module = importlib.import_module(room)
        objects = {name: getattr(module, name) for name in module.__all__}
        callables = {name: found for name, found in objects.items() if callable(found)}  # no rooms, no constants
        new = {name: found for name, found in callables.items() if id(found) not in seen}
        pages[room] = sorted(new, key=str.lower)
        seen |= {id(found) for found in new.values()}
    return pages


#: Attributes that the text of the class describes already.
autodoc_default_options = {"exclude-members": "reading,writing"}
autosummary_context = {"pages": public_pages()}
autosummary_generate = True

#: Scripts of the gallery, in the order of the page. Each runs when the site is built.
GALLERY = ["first_band.py", "uncertainty_map.py", "drell_yan_histogram.py", "three_backends.py", "advice.py"]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "|".join(GALLERY),
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("figures.scrape",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
}
