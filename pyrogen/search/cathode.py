"""CATHODE: events of the signal region against a background that a conditional flow learned in the sidebands.

Hallin et al., arXiv:2109.00546. What is new here: the flow has a posterior, and its spread goes into the score, the
background estimate and the significance; and the flow that predicts a background is not the one that chose the cut.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import BOOLEAN, FRACTION, POSITIVE, SEED, TEXT, door, each, instance, optional, require, whole
from pyrogen.diagnostics.control.weights import Learner
from pyrogen.events import EventSample
from pyrogen.inference import Bootstrap
from pyrogen.inference.backend import MODEL, Backend
from pyrogen.posterior.posterior import Posterior
from pyrogen.search.background import Template, fit_masses, make_template
from pyrogen.search.cathode_result import Cathode
from pyrogen.search.cuts import cuts_of
from pyrogen.search.regions import Regions
from pyrogen.search.samples import METHODS
from pyrogen.search.scoring import score
from pyrogen.search.shares import SearchSample, search_sample
from pyrogen.search.spectrum import UNLIKE
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]
MOST = 1e8  # generated events of a flow
CUTS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  #: fractions of the background that the cuts leave


@door(
    events=instance(EventSample, "an EventSample whose columns have names, such as EventSample(values, names, units)"),
    regions=instance(Regions, "pg.search.Regions(signal=(low, high), window=(low, high))"),
    model=MODEL,
    mass=TEXT,
    energy=POSITIVE,
    features=optional(each(TEXT, "names of columns", 1)),
    backend=optional(instance(Backend, "a backend, such as pg.Bootstrap()")),
    method=METHODS,
    flows=whole(1),
    folds=whole(2),
    ensemble=whole(1),
    template=POSITIVE,
    background=POSITIVE,
    cuts=each(FRACTION, "fractions of the background between 0 and 1", 1),
    parameters=whole(2),
    seed=SEED,
    progress=BOOLEAN,
)
@chosen_threads()
def cathode(
    events: EventSample,
    regions: Regions,
    model: BayesianFlow,
    *,
    mass: str,
    energy: float,
    features: Sequence[str] | None = None,
    backend: Backend | None = None,
    method: str | Learner | Sequence[Learner] = "trees",
    flows: int = 3,
    folds: int = 6,
    ensemble: int = 4,
    template: float = 4.0,
    background: float = 10.0,
    cuts: Sequence[float] = CUTS,
    parameters: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Cathode:
    """Search the signal region for events that the sidebands do not explain.

    1. Conditional Bayesian flows learn p(x|m) on the sidebands, each on a share of their events.
    2. A fit of the dijet function to the masses in the sidebands gives the number of background events in the signal
       region, and their masses. At these masses the flows generate background events.
    3. Classifiers between these and the events of the signal region give every event a score,
       ``log p_data(x) / p_background(x)``. Each member of the ensemble sees the template with the weights of another
       posterior draw, so that the spread of the score has the uncertainty of the template.
    4. A cut on the score leaves a chosen fraction of the generated background. The result compares the events that
       pass with the background that each posterior draw predicts.

    The events are split into folds, and the folds into a share for each flow (:class:`SearchSample`). A classifier
    never scores an event that it was trained on. The background after a cut comes from a flow that made no template
    for the classifier. Otherwise the classifier would look for the deviations of the very flow that predicts the
    background, and the excess over it would be false. With three flows one share of the sidebands is left: it checks
    the flow that predicts, and corrects what all flows get wrong in the same way (``table.corrected``). ``flows=2`` has
    no such share. ``flows=1`` learns all sidebands with one flow, as published: its background is biased.

    Args:
        events: data in the window, with the mass and the features as named columns, without weights.
        regions: signal region and sidebands, in the unit of the mass.
        model: a conditional flow of the features, ``pg.BayesianFlow(pg.CouplingFlow(features=d, context=1, ...))``.
            Choose a preprocessing that knows the limits of the features, such as :class:`pyrogen.events.Positive`.
        mass: name of the column with the mass.
        energy: centre-of-mass energy of the collisions, in the unit of the mass (13.0 for 13 TeV and masses in TeV),
            for the dijet function.
        features: names of the columns that the search sees; None: all but the mass.
        backend: trains each flow, with a seed and a checkpoint of its own; None:
            ``pg.Bootstrap(replicas=12, steps=2000)``.
        method: of the classifiers: ``"trees"`` (extra ``trees``), ``"network"``, ``"both"``, or settings, as in
            :func:`anomaly_scores`.
        flows: K, number of flows, each trained on ``1/K`` of the sidebands.
        folds: a multiple of ``flows``, at least 2.
        ensemble: classifiers of each fold and method.
        template: generated events that each classifier is trained on, per event of the signal region.
        background: generated events of each flow from which the background after a cut is found, per event of the
            signal region.
        cuts: fractions of the background that the cuts leave.
        parameters: of the dijet function, 2 to 4.
        seed: the same seed gives the same bits on one thread.
        progress: show progress bars.

    Returns:
        The :class:`Cathode` with scores, background, significance, closure in the sidebands and sculpting.

    Raises:
        ValueError: events with weights, copies of events, a label or the mass among the features, masses outside the
            window, an empty region, too few events for the folds, a model without one condition or of another number
            of features, an energy in another unit, a cut that leaves too few generated events.
        ImportError: scikit-learn is missing.
        TrainingDivergedError, SamplingError: as of the backend.
    """
    began = time.monotonic()
    learners = METHODS("method", method)
    require(folds % flows == 0, "folds", folds, f"a multiple of flows={flows}")
    sample = search_sample(events, mass, regions, features, folds, flows, seed)
    flow = model.flow
    own = getattr(flow, "context", 1), getattr(flow, "features", sample.features.features)
    if own != (1, sample.features.features):
        raise ValueError(
            f"model has {own[1]} features and {own[0]} conditions; it must have {sample.features.features} features "
            f"({', '.join(sample.features.names)}) and one condition, the mass: context=1"
        )
    require(parameters <= 4, "parameters", parameters, "2, 3 or 4")
    low, high = regions.window
    require(low > 0, "regions", regions, "of masses above zero: the dijet function has no others")
    require(high < energy < UNLIKE * high, "energy", energy, f"above the window {regions.window}, in the same unit")
    size = int(sample.in_signal.sum())
    share = round(template * size / len(sample.others(0)))
    _check_sizes(sample, learners, share, template, background)
    for cut in cuts:
        least = 25 / (background * size)
        require(
            cut >= least, "cuts", cut, f"at least {least:.2g}, or background larger: 25 generated events have to pass"
        )
    fit = fit_masses(sample.mass, regions, energy, parameters)
    backend = Bootstrap(replicas=12, steps=2000) if backend is None else backend
    posteriors = tuple(_posterior(sample, model, backend, k, seed, progress) for k in range(flows))
    templates = [
        _generated(sample, posterior, fit.draw(share, stream(seed, "train", h) % 2**32), seed, "train", h)
        for h, posterior in enumerate(posteriors)
    ]
    check_density(sample, templates)
    backgrounds = tuple(
        _generated(
            sample, posterior, fit.draw(round(background * size), stream(seed, "test", h) % 2**32), seed, "test", h
        )
        for h, posterior in enumerate(posteriors)
    )
    sidebands = tuple(
        _generated(
            sample, posterior, _sideband_masses(sample, h, round(background * size / 2), seed), seed, "beside", h
        )
        for h, posterior in enumerate(posteriors)
    )
    scored = score(sample, templates, backgrounds, sidebands, learners, ensemble, seed, progress)
    return Cathode(
        sample=sample,
        mass_fit=fit,
        posteriors=posteriors,
        templates=backgrounds,
        classifiers=scored.classifiers,
        members=scored.members,
        table=cuts_of(sample, fit, scored, backgrounds, sidebands, np.array(sorted(cuts, reverse=True))),
        seconds=time.monotonic() - began,
        settings={
            "backend": type(backend).__name__,
            "backend_settings": backend.describe(),
            "methods": [learner.describe() for learner in learners],
            "flows": flows,
            "folds": folds,
            "ensemble": ensemble,
            "template": template,
            "background": background,
            "parameters": parameters,
            "energy": energy,
            "seed": seed,
        },
    )


def _check_sizes(
    sample: SearchSample, learners: Sequence[Learner], share: int, template: float, background: float
) -> None:
    """Refuse samples that are too small to train a classifier, or that no memory holds."""
    size, others = int(sample.in_signal.sum()), len(sample.others(0))
    for name, times in (("template", template), ("background", background)):
        require(times * size <= MOST, name, times, f"at most {MOST / size:.3g}: it makes {MOST:,.0f} generated events")
    rest = int((sample.in_signal & (sample.fold != 0)).sum())
    data = sample.features[sample.in_signal]
    for learner in learners:
        learner.check({"data": rest, f"the template of template={template:g}": share * others}, {"data": data})


def _posterior(
    sample: SearchSample, model: BayesianFlow, backend: Backend, which: int, seed: int, progress: bool
) -> Posterior:
    rows = sample.sideband(which)
    changes: dict[str, Any] = {"seed": stream(seed, "flow", which) % 2**31, "progress": progress and backend.progress}
    if backend.checkpoint is not None:
        path = Path(backend.checkpoint)
        changes["checkpoint"] = path.with_name(f"{path.stem}.flow{which}{path.suffix}")
    context = EventSample(sample.mass[rows], [sample.name])  # conditions have no units
    return replace(backend, **changes).fit(model, sample.features[rows], context=context)


def _generated(sample: SearchSample, posterior: Posterior, mass: Array, seed: int, *which: int | str) -> Template:
    own = sample.features
    return make_template(posterior, mass, own.names, own.units, stream(seed, "generated", *which) % 2**31)


def _sideband_masses(sample: SearchSample, flow: int, n: int, seed: int) -> Array:
    rng = np.random.default_rng(stream(seed, "sidebands", flow) % 2**32)
    return rng.choice(sample.mass[sample.sideband(flow)], n)


def check_density(sample: SearchSample, templates: Sequence[Template]) -> None:
    """Raise a ValueError where a column of the signal region lies outside of what the flows generate."""
    own = sample.features[sample.in_signal]
    for i, (name, column) in enumerate(zip(own.names, own.values.T, strict=True)):
        low, high = np.quantile(column, [0.05, 0.95])
        for template in templates:
            least, most = np.quantile(template.events.values[:, i], [0.05, 0.95])
            if high < least or most < low:
                raise ValueError(
                    f"{name} is mostly {low:.4g} to {high:.4g} in the signal region, and the flow generates "
                    f"{least:.4g} to {most:.4g}; is the unit the same in the sidebands?"
                )
