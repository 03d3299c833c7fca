"""Whole runs in one call: events, flow, fit, figures and a summary, with settings that work.

``pyrogen toy``, ``pyrogen drell-yan`` and ``pyrogen z-jets`` run them from the shell; every field is an option there::

    from pyrogen.recipes import Toy

    summary = Toy("wedge", quick=True).run("out/wedge")  # writes figures, posterior and summary.json
"""

from .drell_yan import DrellYan
from .toy import Toy
from .z_jets import ZJets

__all__ = ["DrellYan", "Toy", "ZJets"]
