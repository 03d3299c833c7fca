"""From numbers to figures. Nothing is computed here; every function returns a ``matplotlib.figure.Figure``.

The figures belong to the caller alone: pyplot, with its list of open figures, is not involved. Save one with
:func:`save_figure` or its own ``savefig``. ``pg.plot`` has the same functions by shorter names: ``pg.plot.lines`` is
``pg.plotting.plot_lines``.

Every function takes ``ax``, which says where to draw:

* None: a new figure in the style of the package;
* an empty ``Figure`` or ``SubFigure`` with constrained layout: the panels are made in it, in the same style;
* an ``Axes``, or a flat list of them, one for each panel: the drawing alone is added. Layout, ticks and fonts stay
  those of the axes. A panel is followed by the one below it that shows the ratio; a wrong number is refused with the
  names of all panels in their order. A legend of the whole figure goes into the first of the axes.
"""

from .amplification import plot_factor, plot_quantile_deviation, plot_quantile_error
from .backends import plot_backends
from .bump_hunt import plot_p_values, plot_scan, plot_spectrum
from .calibration import plot_amplification, plot_calibration, plot_coverage
from .cathode import plot_mass_after_cut, plot_significance, plot_template
from .control import plot_classifier_weights
from .failures import plot_failures
from .histograms import HistogramPanel, plot_histogram, plot_histograms
from .kinematics import plot_kinematics, plot_uncertainties
from .lines import plot_lines
from .maps import plot_correlation, plot_map, plot_marginal_sigma
from .online import plot_online
from .pulls import plot_weight_pulls
from .showers import plot_shower_images
from .sic import plot_scores, plot_sic
from .style import STYLE, colours, save_figure
from .systematics import plot_systematics
from .traces import plot_chains
from .training import plot_training
from .training_size import plot_training_size
from .worth import plot_amplification_map, plot_differential, plot_worth

__all__ = [
    "STYLE",
    "HistogramPanel",
    "colours",
    "plot_amplification",
    "plot_amplification_map",
    "plot_backends",
    "plot_calibration",
    "plot_classifier_weights",
    "plot_coverage",
    "plot_chains",
    "plot_correlation",
    "plot_factor",
    "plot_differential",
    "plot_failures",
    "plot_histogram",
    "plot_histograms",
    "plot_kinematics",
    "plot_lines",
    "plot_map",
    "plot_mass_after_cut",
    "plot_online",
    "plot_marginal_sigma",
    "plot_p_values",
    "plot_quantile_deviation",
    "plot_quantile_error",
    "plot_scores",
    "plot_shower_images",
    "plot_sic",
    "plot_significance",
    "plot_scan",
    "plot_spectrum",
    "plot_systematics",
    "plot_template",
    "plot_training",
    "plot_training_size",
    "plot_uncertainties",
    "plot_weight_pulls",
    "plot_worth",
    "save_figure",
]
