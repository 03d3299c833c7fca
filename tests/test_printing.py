"""One short line for every object, HTML in notebooks with the same facts, and the summary of a posterior.

What the calls of tests/arguments.py make is checked in tests/test_arguments.py, where it is made.
"""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from arguments import chains, posterior
from shown import check_html, check_shown

import pyrogen as pg
import pyrogen.plotting
from pyrogen import diagnostics
from pyrogen.posterior import Finding, PosteriorSummary, RunInfo
from pyrogen.printing import Brief, Shown, brief, listed

ROOMS = (pg, pg.bayes, pg.diagnostics, pg.events, pg.flows, pg.inference, pg.posterior, pg.search, pg.targets)
#: Where classes of users begin.
BASES = {"Format", "PartWriter", "TransformOptions"}


def public():
    for room in (*ROOMS, pg.plotting):
        for name in room.__all__:
            thing = getattr(room, name)
            if inspect.isclass(thing) and not issubclass(thing, BaseException) and name not in BASES:
                yield thing


def test_every_public_class_shows_itself():
    classes = set(public())
    assert len(classes) > 120
    assert sorted(cls.__qualname__ for cls in classes if not issubclass(cls, Shown | tuple)) == []
    plain = [cls for cls in classes if cls.__repr__ in (object.__repr__, torch.nn.Module.__repr__)]
    assert sorted(cls.__qualname__ for cls in plain) == []


FLOWS = {
    "CouplingFlow": lambda: pg.CouplingFlow(2, blocks=2, hidden=(8, 4), transform="rqs"),
    "ChainFlow": lambda: pg.ChainFlow((1, 2), blocks=1, hidden=(4,)),
    "MultiplicityFlow": lambda: pg.MultiplicityFlow(1, 1, 2, blocks=1, hidden=(4,)),
    "ShowerFlow": lambda: pg.ShowerFlow((2, 3), 0.1, blocks=1, hidden=(4,)),
}


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_is_a_line_and_print_shows_its_modules(kind):
    flow = FLOWS[kind]()
    check_shown(flow)
    weights = sum(p.numel() for p in flow.parameters())
    assert repr(flow).startswith(f"{kind}(") and f"weights={weights:,}" in repr(flow)
    whole = str(flow)
    assert whole.count("\n") > 8 and "Conditioner(" in whole and "CouplingBlock(" in whole
    assert "Conditioner(" in check_html(flow)  # on a click
    lifted = pg.BayesianFlow(flow)
    check_shown(lifted)
    assert f"{kind} of {flow.features} features" in repr(lifted) and f"{weights:,} weights" in repr(lifted)
    assert "Conditioner(" in str(lifted) and ("not fitted" in repr(lifted) or kind == "ShowerFlow")
    assert repr(flow) in check_html(lifted) and "\n" not in repr(flow)  # print changed nothing for good


def test_a_coupling_flow_tells_its_transform_and_layers():
    assert "transform='rqs', hidden=(8, 4)" in repr(FLOWS["CouplingFlow"]())


def test_a_guide_tells_its_weights():
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))
    guide = pg.AutoNormal(model)
    assert repr(guide) == "AutoNormal(not set up)"
    guide(torch.randn(10, 2))
    assert repr(guide) == f"AutoNormal(theta: {model.packing.size} weights)"
    check_shown(guide)


def test_html_holds_what_names_hold():
    """Names of users may have what HTML takes for its own."""
    sample = pg.EventSample(np.ones((3, 2)), ["<b>pT</b>", "a&b"], ['"', "'"], weights=np.ones(3))
    text = check_html(sample)
    assert "<b>pT</b>" in text and "a&b" in text and "&lt;b&gt;" in sample._repr_html_()
    assert "effective size 3" in text and "mean" in text  # the table of columns on a click


def test_many_columns_are_the_first_and_a_number():
    sample = pg.EventSample(np.ones((2000, 300)), [f"column_{i}" for i in range(300)])
    check_shown(sample)
    assert repr(sample).startswith("EventSample(2,000 events; column_0, ") and "(300 in all)" in repr(sample)
    assert listed(["a", "b"]) == "a, b" and listed(["x" * 500, "y"]).endswith("... (2 in all)")


def test_a_dataclass_with_many_fields_is_cut_and_its_table_is_whole():
    made = dataclasses.make_dataclass(
        "Long", [(f"field_{i}", float) for i in range(30)], bases=(Brief,), repr=False, frozen=True
    )(*np.arange(30.0))
    assert len(repr(made)) < 200 and "(30 in all)" in repr(made)
    assert "field_29" in check_html(made)
    assert brief((4,)) == "(4,)"


def test_backends_tell_what_was_changed_and_the_table_has_all():
    text = check_html(pg.HMC(chains=7))
    assert repr(pg.HMC(chains=7)) == "HMC(chains=7)" and "warmup" in text and "max_steps" in text
    check_shown(pg.GAN(seed=3))


def test_verdicts_are_in_the_line():
    values = np.random.default_rng(1).normal(size=(30, 50, 3))
    calibration = diagnostics.calibration_of(values, np.zeros(3))
    assert repr(calibration).endswith(f"; {calibration.verdict})") and calibration.verdict in check_html(calibration)
    serious = Finding("widths too small", "0.1 of the prior", "Train longer")
    told = dataclasses.replace(posterior().info, findings=(serious, dataclasses.replace(serious, serious=False)))
    wrong = pg.Posterior(posterior().model, posterior().weights, None, told, progress=False)
    assert repr(wrong).endswith("1 serious finding, not calibrated)")
    check_shown(wrong)


def test_summary_of_a_posterior():
    events = pg.EventSample(np.random.default_rng(1).normal(size=(200, 2)), ["pt", "eta"], ["GeV", ""])
    backend = pg.SVI(epochs=2, batch_size=50, validation=0.1, seed=3, progress=False)
    trained = backend.fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), events)
    found = trained.summary()
    assert isinstance(found, PosteriorSummary)
    assert (found.backend, found.training_events, found.validation_events) == ("SVI", 180, 20)
    assert found.columns == ("pt [GeV]", "eta") and found.settings["seed"] == 3 and found.draws is None
    assert found.weights == trained.weights.size and found.memory == 2 * 4 * found.weights  # means and widths, float32
    name, first, last = found.loss
    assert (name, first, last) == ("loss", trained.history["loss"][0], trained.history["loss"][-1])
    assert found.seconds == trained.info.seconds > 0
    assert found.versions["torch"] == torch.__version__ and found.versions["pyrogen"] == pg.__version__
    lines = str(found).splitlines()
    assert lines[0].startswith("verdict") and found.verdict in lines[0] and found.verdict in repr(found)
    assert all(
        any(word in line for line in lines)
        for word in ("epochs=2", "CouplingFlow(", "180, and 20", " bytes for the weights", " s")
    )
    check_shown(found)
    check_shown(trained)
    assert "\n" not in str(trained) and found.verdict in check_html(trained)


def test_verdict_of_the_summary():
    serious = Finding("widths too small", "0.1 of the prior", "Train longer")
    info = RunInfo(backend="HMC", training_events=10, effective_size=5.0, findings=(serious,))
    for told, verdict in (
        (info, "do not use sigma: widths too small"),
        (dataclasses.replace(info, findings=()), "nothing serious found; sigma is not calibrated"),
        (
            dataclasses.replace(info, findings=(dataclasses.replace(serious, serious=False),)),
            "nothing serious found, 1 remark; sigma is not calibrated",
        ),
        (dataclasses.replace(info, findings=(), is_posterior=False), "nothing serious found; the networks are single"),
        (RunInfo(), "nothing known of its training; sigma is not calibrated"),
    ):
        known = pg.Posterior(chains().model, chains().weights, {"potential": np.array([[4.0, 2.0], [6.0, 2.0]])}, told)
        found = known.summary()
        assert found.verdict.startswith(verdict) and found.draws == 20 and found.loss == ("potential", 5.0, 2.0)
        check_shown(found)
    text = pg.Posterior(chains().model, chains().weights, None, info).summary().text()
    assert "! widths too small" in text and "as good as 5 without" in text and "Train longer" in text
