"""Every figure looks as it did, can be drawn on axes of the user's, and can be read on a slide.

After a wanted change: ``python tests/images.py``, and look at what changed.
"""

import io
import json
import re

import images
import made_up
import matplotlib
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

import pyrogen as pg
from pyrogen import plotting

pytest.importorskip("mplhep")  # of the figures of LHC experiments

STORED = json.loads(images.WORDS.read_text())
SLIDE = (12.5, 5.8)  # inches of a slide of 13.3 by 7.5 that a figure may take
READABLE = 7.5  # points on the slide
#: What an axis may be without a unit.
DIMENSIONLESS = re.compile(
    r"amplification|G of|G = |differential G|N_|quantile|number of|training events|events seen|generated events|"
    r"credibility|truth inside|truth within|pull|width of|relative (uncertainty|deviation)|ratio|/ truth|/ Pythia|"
    r"gen\. /|template|score|efficiency|significance improvement|fraction|p-value|transition|acceptance|"
    r"step|epoch|^row$|^column$|correlation|distance|w \$|\$w|above cut|\\log_\{10\}|\\sigma\s*/|\\sigma/|error \$|"
    r"loss per event|"
    r"^density( of \$x\$)?$|^\$x\$$|^\$\\eta\$$|tau_|events per bin|events / |^\$t =|true events|improvement"
)


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def content(axis):
    """How much is drawn on an axis."""
    return len(axis.lines), len(axis.patches), len(axis.collections), len(axis.images), axis.get_xlabel()


@pytest.mark.parametrize("name", made_up.FIGURES)
def test_figure(name):
    """As stored; the labels have units; letters are large enough; on axes of the user's the same is drawn."""
    before = dict(matplotlib.rcParams)
    figure = made_up.draw(name)
    assert dict(matplotlib.rcParams) == before
    assert images.words(figure) == STORED[name]
    for axis in figure.axes:
        for label in filter(None, (axis.get_xlabel(), axis.get_ylabel())):
            assert re.search(r"\[[^\]]+\]", label) or DIMENSIONLESS.search(label), f"{label} has no unit"
    width, height = figure.get_size_inches()
    scale = min(1, SLIDE[0] / width, SLIDE[1] / height)
    sizes = {text.get_text(): text.get_fontsize() * scale for text in images.texts(figure)}
    small = {told: round(size, 1) for told, size in sizes.items() if size < READABLE and not told.startswith("σ: ")}
    assert not small, "too small on a slide"
    if "-" not in name:
        on_axes_of_the_user(name, panels(figure))
    assert images.different(images.picture(figure), images.stored(name)) <= images.MOST


def on_axes_of_the_user(name, alone):
    """The same is drawn; nothing else of the figure changes; a wrong number of axes is refused, with names."""
    figure = Figure(figsize=(4 * len(alone), 4))
    axes = list(figure.subplots(1, len(alone), squeeze=False)[0])
    kept = [
        (axis.get_position().bounds, axis.xaxis.label.get_fontsize(), axis.xaxis.get_tick_params()) for axis in axes
    ]
    before = dict(matplotlib.rcParams)
    assert made_up.draw(name, ax=axes if len(axes) > 1 else axes[0]) is figure
    assert dict(matplotlib.rcParams) == before and not figure.texts and not figure.legends
    colourful = len(figure.axes) > len(axes)  # a colour bar takes room from its panel
    for axis, its, (place, size, ticks) in zip(axes, alone, kept, strict=True):
        assert content(axis)[:4] == content(its)[:4]
        assert axis.get_xlabel() == its.get_xlabel() or (name == "backends" and not its.get_xlabel())
        assert colourful or axis.get_position().bounds == place
        assert axis.xaxis.label.get_fontsize() == size
        changed = {key for key, value in axis.xaxis.get_tick_params().items() if ticks.get(key, value) != value}
        assert changed <= {"labelrotation"}
        assert axis.get_xlim() == pytest.approx(its.get_xlim()) or name == "amplification_map"
    right = f"ax has {len(axes) + 1}; it must be {'one' if len(axes) == 1 else len(axes)} Axes"
    wrong = axes[:-1] if len(axes) > 1 else [*axes, figure.add_subplot()]
    right = f"ax has {len(wrong)}; it must be {'one' if len(axes) == 1 else len(axes)} Axes"
    with pytest.raises(ValueError, match=right):
        made_up.draw(name, ax=wrong)


@pytest.mark.parametrize("name", ["lines", "kinematics", "map"])
def test_a_subfigure_is_filled(name):
    figure = Figure(figsize=(20, 14), layout="constrained")
    left, right = figure.subfigures(1, 2)
    assert made_up.draw(name, ax=left) is figure
    assert len(panels(left)) == len(panels(made_up.draw(name))) and not right.axes
    with pytest.raises(ValueError, match=r"ax is .*without axes; this one has"):
        made_up.draw(name, ax=left)


def test_what_ax_may_not_be():
    figure = Figure()
    table = figure.subplots(2, 2)
    for wrong, told in (
        (table, "flat list"),
        ([table[0, 0]] * 4, "different Axes"),
        ([*table.flat[:3], Figure().subplots()], "Axes of one figure"),
        (Figure(), "constrained"),
        (list(table.flat[:3]), "density, ratio, relative uncertainty, absolute uncertainty"),
    ):
        with pytest.raises(ValueError, match=f"ax .*{told}"):
            made_up.draw("lines", ax=wrong)
    assert all(content(axis) == (0, 0, 0, 0, "") for axis in table.flat)


def test_a_note_of_the_calibration_stands_below_the_axes_of_the_user():
    figure = Figure()
    axis = figure.subplots()
    made_up.draw("histogram", ax=axis)
    assert [text.get_text() for text in axis.texts] == ["σ: calibrated with 20 replicas: factor 1.31 ± 0.08"]
    figure.draw_without_rendering()
    assert axis.texts[0].get_window_extent().y1 <= axis.xaxis.label.get_window_extent().y0


def test_an_image_without_a_band_or_a_line_is_another_one():
    """The tolerance sees what is missing, and words see a label that is missing."""
    for name, kind in (("lines", PolyCollection), ("histogram-truth", StepPatch)):
        figure = made_up.draw(name)
        bands = [its for axis in figure.axes for its in (*axis.collections, *axis.patches) if isinstance(its, kind)]
        bands[1].remove()  # two sigma, the paler one
        assert images.different(images.picture(figure), images.stored(name)) > 50 * images.MOST
    figure = made_up.draw("training")
    figure.axes[1].lines[1].remove()
    figure.axes[0].set_xlabel("")
    assert images.words(figure) != STORED["training"]
    assert images.different(images.picture(figure), images.stored("training")) > 20 * images.MOST


def test_short_names_are_the_same_functions():
    assert sorted(pg.plot.__all__) == sorted(name.removeprefix("plot_") for name in plotting.__all__)
    for name in plotting.__all__:
        assert getattr(pg.plot, name.removeprefix("plot_")) is getattr(plotting, name)
    shown = {name.removeprefix("plot_") for name in plotting.__all__ if name.startswith("plot_")}
    assert {name.partition("-")[0] for name in made_up.FIGURES} == shown
    assert {path.stem for path in images.SHOWN.glob("*.png")} == shown
    assert {path.stem for path in images.STORED.glob("*.png")} == {*made_up.FIGURES}
    assert sum(path.stat().st_size for path in images.STORED.iterdir()) < 1e6


def test_files_have_letters_and_no_date(tmp_path):
    """The same numbers give the same bytes; text is text; a mesh is one image."""
    for kind in ("svg", "pdf", "png"):
        figures = made_up.draw("map-slice"), made_up.draw("map-slice")
        first, fresh = (
            pg.plot.save_figure(its, tmp_path / f"{k}.{kind}").read_bytes() for k, its in enumerate(figures)
        )
        assert first == fresh, kind
        if kind == "svg":
            assert b"<text" in first and b"relative uncertainty" in first and first.count(b"<image") >= 3
            assert b"<dc:date>" not in first and len(first) < 200_000
        if kind == "pdf":
            assert b"/FontFile2" in first and b"/Type3" not in first and b"CreationDate" not in first
    before = dict(matplotlib.rcParams)
    figures[0].savefig(io.BytesIO(), format="png")
    assert dict(matplotlib.rcParams) == before


#: Of linear RGB, for eyes without red and without green receptors: Machado et al., IEEE TVCG 15 (2009) 1291.
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART = 20.0  # in CIE L*a*b*: about ten times what is just seen


def lab(colours, eye):
    """CIE L*a*b* under D65, ``[n, 3]``."""
    c = np.array([to_rgb(colour) for colour in colours])
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ np.transpose(eye)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.clip(linear, 0, 1) @ np.transpose(to_xyz) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@pytest.mark.parametrize("eye", EYES)
def test_colours_stay_apart(eye):
    """From each other, from black and from the paper; the colours before were 6.1 apart without green receptors."""
    points = lab([*pg.plot.colours(7), "black", "white"], EYES[eye])
    distances = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(9, 1)]
    assert distances.min() > APART
    old = lab(("#2a8f3c", "#8c6d31"), EYES["deuteranopia"])
    assert np.linalg.norm(old[0] - old[1]) < 7
