"""Figures of the gallery: pyrogen's functions return them, and pyplot does not know them."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scrape(block, block_vars, gallery_conf):
    """Save the figures among the names of a script, each in the block that made it.

    Args:
        block: the block of the script, not used.
        block_vars: names and values of the script, and paths for the images.
        gallery_conf: the gallery's configuration.

    Returns:
        the text that shows the figures.
    """
    paths = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not getattr(value, "shown_in_gallery", False):
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=120, bbox_inches="tight")
            value.shown_in_gallery = True
            paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])
