"""What every object of the package shows: one short line, and valid HTML with the same facts."""

from xml.etree import ElementTree

from pyrogen.printing import Shown

LONGEST = 200


def check_shown(thing):
    """Check an object of the package, and such objects in a dictionary or a list; other objects may look as they do."""
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list | tuple) and type(thing) in (list, tuple):
        for entry in thing[:5]:
            check_shown(entry)
        return
    if isinstance(thing, type) or not type(thing).__module__.startswith("pyrogen"):
        return
    line = repr(thing)
    assert "\n" not in line and len(line) <= LONGEST, line
    assert " object at 0x" not in line, line
    if not isinstance(thing, tuple):  # a pair with names is what its line says
        assert isinstance(thing, Shown), f"{type(thing)} has no HTML"
        check_html(thing)


def check_html(thing):
    """Check that a notebook shows valid HTML with the facts of the line; returns its text."""
    page = ElementTree.fromstring(thing._repr_html_())  # raises of tags that are not closed, of & and <
    text = "".join(page.itertext())
    assert type(thing).__name__ in text and thing._line() in text, text
    for name in thing._facts():
        assert str(name) in text
    colours = [part for part in page.iter() if "color" in part.get("style", "") or part.get("bgcolor")]
    assert not colours, "colours of its own are not to be read on a dark page"
    return text
