"""All figures by short names: ``pg.plot.lines(result)`` is ``pg.plotting.plot_lines(result)``.

The functions are the same. What ``ax`` means, and how to save a figure, is in :mod:`pyrogen.plotting`.
"""

from pyrogen import plotting

HistogramPanel = plotting.HistogramPanel
STYLE = plotting.STYLE
colours = plotting.colours
amplification = plotting.plot_amplification
amplification_map = plotting.plot_amplification_map
backends = plotting.plot_backends
calibration = plotting.plot_calibration
chains = plotting.plot_chains
classifier_weights = plotting.plot_classifier_weights
correlation = plotting.plot_correlation
coverage = plotting.plot_coverage
differential = plotting.plot_differential
factor = plotting.plot_factor
failures = plotting.plot_failures
histogram = plotting.plot_histogram
histograms = plotting.plot_histograms
kinematics = plotting.plot_kinematics
lines = plotting.plot_lines
map = plotting.plot_map
marginal_sigma = plotting.plot_marginal_sigma
mass_after_cut = plotting.plot_mass_after_cut
online = plotting.plot_online
p_values = plotting.plot_p_values
quantile_deviation = plotting.plot_quantile_deviation
quantile_error = plotting.plot_quantile_error
scan = plotting.plot_scan
scores = plotting.plot_scores
shower_images = plotting.plot_shower_images
sic = plotting.plot_sic
significance = plotting.plot_significance
spectrum = plotting.plot_spectrum
systematics = plotting.plot_systematics
template = plotting.plot_template
training = plotting.plot_training
training_size = plotting.plot_training_size
uncertainties = plotting.plot_uncertainties
weight_pulls = plotting.plot_weight_pulls
worth = plotting.plot_worth
save_figure = plotting.save_figure

__all__ = [
    "HistogramPanel",
    "STYLE",
    "colours",
    "amplification",
    "amplification_map",
    "backends",
    "calibration",
    "chains",
    "classifier_weights",
    "correlation",
    "coverage",
    "differential",
    "factor",
    "failures",
    "histogram",
    "histograms",
    "kinematics",
    "lines",
    "map",
    "marginal_sigma",
    "mass_after_cut",
    "online",
    "p_values",
    "quantile_deviation",
    "quantile_error",
    "scan",
    "scores",
    "shower_images",
    "sic",
    "significance",
    "spectrum",
    "systematics",
    "template",
    "training",
    "training_size",
    "uncertainties",
    "weight_pulls",
    "worth",
    "save_figure",
]
