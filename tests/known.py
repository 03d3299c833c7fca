"""Flows whose posteriors are known in closed form."""

import math

import torch
from torch import nn

from pyrogen.posterior import CalibrationRecord, CalibrationRound

#: A record of a calibration, as pg.calibrate writes it.
RECORD = CalibrationRecord(
    level=0.683,
    knob="kl_weight",
    value=0.1,
    verdict="calibrated",
    coverage=(0.661, 0.03),
    one_sigma=(0.661, 0.03),
    two_sigma=(0.93, 0.014),
    pull_width=(1.1, 0.06),
    factor=(0.93, 0.06),
    curve=((0.5, 0.48, 0.04), (0.9, 0.86, 0.02)),
    how="parametric bootstrap",
    trainings=20,
    size=500,
    quantities=101,
    draws=100,
    seed=0,
    rounds=(
        CalibrationRound(value=1.0, coverage=(0.97, 0.03), pull_width=0.4, factor=0.33),
        CalibrationRound(value=0.1, coverage=(0.661, 0.03), pull_width=1.1, factor=0.93),
    ),
)


class Location(nn.Module):
    """Events ~ N(location, 1) in every feature: the posterior is a Gaussian of independent weights."""

    def __init__(self, features=2):
        super().__init__()
        self.features = features
        self.location = nn.Parameter(torch.zeros(features))

    def log_prob(self, x):
        # Written out: torch's own takes most of the time of tests with a thousand posteriors to check its arguments.
        return (-0.5 * (x - self.location).square() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, n):
        return self.location + torch.randn(n, self.features).to(self.location)


class Line(nn.Module):
    """Events ~ N(context @ slope, width^2): a Gaussian posterior whose correlations are those of the conditions."""

    features = 1

    def __init__(self, context=3, width=1.0):
        super().__init__()
        self.context, self.width = context, width
        self.slope = nn.Parameter(torch.zeros(context))

    def log_prob(self, x, context):
        # Written out: torch's own would refuse the NaN that some tests are about.
        residual = (x[:, 0] - context @ self.slope) / self.width
        return -0.5 * residual.square() - math.log(self.width * math.sqrt(2 * math.pi))

    def sample(self, n, context):
        return (context @ self.slope + self.width * torch.randn(n).to(self.slope))[:, None]
