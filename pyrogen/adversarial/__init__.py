"""Generators that are trained against a discriminator: they give events, and have no density."""

from pyrogen.adversarial.gan import GAN
from pyrogen.adversarial.sampler import GANSampler

__all__ = ["GAN", "GANSampler"]
