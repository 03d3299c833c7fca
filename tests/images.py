"""Small images of all figures with made-up results, without their letters, and the words that stand in them.

Letters differ by a pixel or more from one version of freetype to the next, so that words are compared as words.
``python tests/images.py`` draws the images of ``tests/figures`` and of ``docs/figures/kinds`` anew, after a wanted
change; with names behind it these alone, with ``--tests`` those of ``tests/figures`` alone.
"""

import io
import json
import sys
from pathlib import Path

import made_up
import matplotlib
import numpy as np
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator
from PIL import Image, ImageFilter

STORED = Path(__file__).parent / "figures"
WORDS = STORED / "words.json"
SHOWN = Path(__file__).parent.parent / "docs" / "figures" / "kinds"
DPI = 40
RADIUS = 3  # pixels over which differences are averaged: an edge may be one pixel beside its place
SEEN = 8  # of 255, a mean difference that counts
MOST = 20  # pixels that may have one


def texts(figure):
    """All texts but the numbers at ticks; to look for those would make all ticks, which takes most of the time."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in figure.axes:
        found += [axis.xaxis.label, axis.yaxis.label]
        for child in axis.get_children():
            found += [child] if isinstance(child, Text) else []
            found += [*child.get_texts(), child.get_title()] if isinstance(child, Legend) else []
    return [text for text in found if text.get_text().strip()]


def words(figure):
    """What a figure says: labels, titles, legends, notes and named ticks, in order of the alphabet."""
    told = [text.get_text() for text in texts(figure)]
    for axis in figure.axes:
        for which in (axis.xaxis, axis.yaxis):
            places = which.get_major_locator()
            told += which.get_major_formatter().format_ticks(places.locs) if isinstance(places, FixedLocator) else []
    return sorted(str(text) for text in told if str(text).strip())


def picture(figure):
    """The figure without letters, legends and small ticks as numbers ``[height, width, 3]``, in a plain layout."""
    figure.set_layout_engine(None)
    figure.subplots_adjust(0.08, 0.12, 0.95, 0.85, 0.3, 0.3)
    for axis in figure.axes:
        axis.tick_params(which="both", **dict.fromkeys(("labelbottom", "labelleft", "labeltop", "labelright"), False))
        axis.minorticks_off()
        for which in (axis.xaxis, axis.yaxis):
            which.offsetText.set_visible(False)
    for artist in [*texts(figure), *figure.legends, *filter(None, (axis.get_legend() for axis in figure.axes))]:
        artist.set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    return np.asarray(Image.open(file).convert("RGB"))


def different(one, other):
    """Number of pixels around which two pictures differ."""
    if one.shape != other.shape:
        return one.size
    found = np.zeros(one.shape[:2], dtype=bool)
    for colour in range(3):
        signed = one[..., colour].astype(np.int16) - other[..., colour]
        for sign in (1, -1):
            part = Image.fromarray(np.clip(128 + sign * signed / 2, 0, 255).astype(np.uint8))
            blurred = np.asarray(part.filter(ImageFilter.BoxBlur(RADIUS)))
            found |= blurred.astype(np.int16) - 128 > SEEN / 2
    return int(found.sum())


def stored(name):
    """The picture that a figure has to look like."""
    return np.asarray(Image.open(STORED / f"{name}.png").convert("RGB"))


def save(image, path):
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def renew(names, shown=True):
    """Draw images anew; those of the documentation, too."""
    told = json.loads(WORDS.read_text()) if WORDS.exists() else {}
    for name in names:
        figure = made_up.draw(name)
        told[name] = words(figure)
        save(Image.fromarray(picture(figure)), STORED / f"{name}.png")
        if shown and "-" not in name:
            file = io.BytesIO()
            made_up.draw(name).savefig(file, dpi=55, format="png")
            save(Image.open(file).convert("RGB"), SHOWN / f"{name}.png")
        print(name)
    WORDS.write_text(json.dumps({name: told[name] for name in made_up.FIGURES if name in told}, indent=1) + "\n")


if __name__ == "__main__":
    matplotlib.use("Agg")
    renew([name for name in sys.argv[1:] if name != "--tests"] or made_up.FIGURES, "--tests" not in sys.argv)
