"""From a posterior to numbers that can be checked: lines through a known density, convergence, comparisons."""

from pyrogen.coverage import Calibration, bootstrap_calibration, calibration_of, simulation_based_calibration

from .advice import Advice, Finding, advise
from .agreement import Agreement, agreement
from .amplification.averaging import AveragingAmplification, averaging_amplification
from .amplification.differential import (
    DifferentialAmplification,
    DifferentialWorth,
    differential_amplification,
)
from .amplification.references import (
    KernelDensity,
    Memorised,
    Truth,
    TwoGaussians,
    fit_two_gaussians,
    kernel_density,
    memorised,
    truth,
)
from .amplification.result import Amplification, QuantileError
from .amplification.study import amplification
from .arviz_io import make_inference_data, read_inference_data, write_inference_data
from .bin_calibration import BinCalibration, calibration_in_bins
from .calibration import calibration_along_lines
from .classifier import Classifier, ClassifierResult, classifier_test, train_classifier
from .classifier_training import Network
from .comparison import Comparison, band_overlap, compare, coverage
from .control.calibration import CalibrationCurve
from .control.failure_results import Failures, ObservableFailure, TailHistogram
from .control.failures import find_failures
from .control.measures import SampleMeasures, sample_measures
from .control.modes import FailureMode, Region
from .control.pulls import HistogramPulls, WeightPulls, weight_pulls
from .control.result import ClassifierWeights, Trainings
from .control.tables import TailFractions, WeightHistograms
from .control.trees import Trees
from .control.two_samples import TwoSampleTest, two_sample_test
from .control.unweighting import Closure, Unweighted, closure, unweight
from .control.weights import classifier_weights
from .convergence import Convergence, function_space, probe_points
from .distances import predictive_distance, total_variation, wasserstein
from .fit_shape import ShapeFit, fit_shape
from .inference_data import to_inference_data
from .likelihood_fit import LikelihoodFit, likelihood_fit
from .lines import LineResult, density_along_lines
from .maps import UncertaintyMap, uncertainty_map
from .marginals import MarginalResult, marginal
from .peak import PeakFit, peak_width
from .predictive import Elpd, effective_parameters, elpd, guide_pareto_k
from .quality import QualityTable, sample_quality
from .quantile_bins import AmplificationFit, QuantileBinResult, fit_amplification, quantile_bins
from .reweighting import Reweighted, reweight
from .roc import roc_auc
from .shifts import PriorDraws, Shift, Systematics
from .systematics import systematics
from .templates import Templates
from .training_size import SizeScan, scan_training_size

__all__ = [
    "Advice",
    "Agreement",
    "Amplification",
    "AmplificationFit",
    "AveragingAmplification",
    "BinCalibration",
    "Calibration",
    "CalibrationCurve",
    "Classifier",
    "ClassifierResult",
    "ClassifierWeights",
    "Closure",
    "Comparison",
    "Convergence",
    "DifferentialAmplification",
    "DifferentialWorth",
    "Elpd",
    "FailureMode",
    "Failures",
    "Finding",
    "HistogramPulls",
    "KernelDensity",
    "LikelihoodFit",
    "LineResult",
    "MarginalResult",
    "Memorised",
    "Network",
    "ObservableFailure",
    "PeakFit",
    "QualityTable",
    "SampleMeasures",
    "QuantileBinResult",
    "QuantileError",
    "Region",
    "Reweighted",
    "ShapeFit",
    "PriorDraws",
    "Shift",
    "SizeScan",
    "Systematics",
    "TailFractions",
    "TailHistogram",
    "Templates",
    "Trainings",
    "Trees",
    "Truth",
    "TwoGaussians",
    "TwoSampleTest",
    "UncertaintyMap",
    "Unweighted",
    "WeightHistograms",
    "WeightPulls",
    "advise",
    "agreement",
    "amplification",
    "averaging_amplification",
    "band_overlap",
    "bootstrap_calibration",
    "calibration_along_lines",
    "calibration_in_bins",
    "calibration_of",
    "classifier_test",
    "classifier_weights",
    "closure",
    "compare",
    "coverage",
    "density_along_lines",
    "differential_amplification",
    "effective_parameters",
    "elpd",
    "find_failures",
    "fit_amplification",
    "fit_shape",
    "fit_two_gaussians",
    "function_space",
    "guide_pareto_k",
    "kernel_density",
    "likelihood_fit",
    "make_inference_data",
    "marginal",
    "memorised",
    "peak_width",
    "predictive_distance",
    "probe_points",
    "quantile_bins",
    "read_inference_data",
    "reweight",
    "roc_auc",
    "sample_measures",
    "sample_quality",
    "scan_training_size",
    "simulation_based_calibration",
    "systematics",
    "to_inference_data",
    "total_variation",
    "train_classifier",
    "truth",
    "two_sample_test",
    "uncertainty_map",
    "unweight",
    "wasserstein",
    "weight_pulls",
    "write_inference_data",
]
