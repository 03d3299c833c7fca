"""Pages of public objects: out of the menu, as they are hundreds, and found under all names of the object."""

import importlib

from sphinx.errors import NoUri
from sphinx.ext.autosummary import autosummary_toc


def resolve(app, env, node, contnode):
    """Find ``pyrogen.flows.CouplingFlow`` at ``pyrogen.CouplingFlow``."""
    if node.get("refdomain") != "py":
        return None
    target = node.get("reftarget", "")
    room, _, name = target.rpartition(".")
    room = room or node.get("py:module") or "pyrogen"
    wanted = room_object(room, name)
    if wanted is None:
        return None
    for page, names in app.config.autosummary_context["pages"].items():
        for listed in names:
            full = f"{page}.{listed}"
            if full != target and getattr(importlib.import_module(page), listed) is wanted:
                try:
                    domain = env.get_domain("py")
                    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
                except NoUri:
                    return None
    return None


def room_object(room, name):
    """The object that a module has under a name, if it has one."""
    try:
        return getattr(importlib.import_module(room), name, None)
    except ImportError:
        return None


def leave_out_of_menu(app, doctree):
    """The menu has the rooms; the page of a room has the table of its objects."""
    if app.env.docname.startswith("reference/"):
        for node in list(doctree.findall(autosummary_toc)):
            node.parent.remove(node)


def setup(app):
    app.connect("doctree-read", leave_out_of_menu, priority=100)  # before the menu is collected
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True}
