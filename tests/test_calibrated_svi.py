"""SVI(kl_weight="calibrated"): the training that finds the factor on its KL by itself."""

from dataclasses import replace

import pytest
import torch

import pyrogen as pg
from pyrogen.inference import calibrated
from pyrogen.inference.vi import training

pytestmark = pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")  # few trainings, and short ones
EVENTS = torch.randn(2000, 2, generator=torch.Generator().manual_seed(3)) + 0.3
FLOW = {"blocks": 1, "hidden": (4,), "transform": "rqs", "bins": 3}
SVI = {"epochs": 8, "batch_size": 50, "lr": 2e-2, "lr_widths": 1e-1, "progress": False}


@pytest.fixture(scope="module")
def small():
    return pg.BayesianFlow(pg.CouplingFlow(2, **FLOW), prior_scale="fan-in")


def test_svi_calibrates_itself_to_the_same_bits(small, tmp_path):
    settings = pg.SVI(**SVI, kl_weight="calibrated", checkpoint=tmp_path / "run.h5")
    found = settings.fit(small, EVENTS[:100])
    record = found.info.calibration
    same = pg.calibrate(pg.SVI(**SVI), small, EVENTS[:100])
    assert torch.equal(found.weights.arrays["loc"], same.weights.arrays["loc"])
    assert record == same.info.calibration and record.knob == "kl_weight"
    # What the posterior tells of is the number, wherever it counts.
    assert found.info.settings["kl_weight"] == record.value and settings.describe()["kl_weight"] == "calibrated"
    assert found.info.tempered == (record.value != 1) and found.info.event_power == pytest.approx(1 / record.value)
    plain = pg.SVI(**SVI, kl_weight=record.value).fit(small, EVENTS[:100])
    assert torch.equal(plain.weights.arrays["loc"], found.weights.arrays["loc"])
    again = settings.fit(small, EVENTS[:100])  # from its checkpoints
    assert torch.equal(again.weights.arrays["loc"], found.weights.arrays["loc"])
    with pytest.raises(ValueError, match="start is .*begin anew"):
        settings.fit(small, EVENTS[:100], start=found)


def test_svi_killed_in_a_round_goes_on_to_the_same_bits(small, tmp_path, monkeypatch):
    settings = pg.SVI(**SVI, checkpoint=tmp_path / "run.h5", checkpoint_every=2)
    whole = pg.calibrate(replace(settings, checkpoint=None), small, EVENTS[:100])
    saves, save = [], training.save_checkpoint

    def killed(*given):
        saves.append(given[0].name)
        save(*given)
        if len(saves) == 6:  # four belong to the first fit
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", killed)
        with pytest.raises(KeyboardInterrupt, match=r"saved in .*run\.round1\.h5"):
            pg.calibrate(settings, small, EVENTS[:100])
    assert saves[-1] == "run.round1.h5"
    again = pg.calibrate(settings, small, EVENTS[:100])
    assert again.info.calibration == whole.info.calibration
    assert torch.equal(again.weights.arrays["loc"], whole.weights.arrays["loc"])


def test_many_samples_take_the_number_of_the_first(small):
    settings = pg.SVI(**SVI, kl_weight="calibrated")
    found = settings.fit_many(small, [EVENTS[:100], -EVENTS[:100]])
    records = [one.info.calibration for one in found]
    assert records[0] == records[1] and records[0].how == "parametric bootstrap of sample 0"
    assert [one.info.settings["kl_weight"] for one in found] == [records[0].value] * 2
    plain = pg.SVI(**SVI, kl_weight=records[0].value).fit_many(small, [EVENTS[:100], -EVENTS[:100]])
    assert torch.equal(plain[1].weights.arrays["loc"], found[1].weights.arrays["loc"])
    with pytest.raises(ValueError, match="samples have between 50 and 2000 events"):
        settings.fit_many(small, [EVENTS, EVENTS[:50]])
    few = torch.ones(100).index_fill(0, torch.arange(50), 0.0)
    samples = [pg.EventSample(EVENTS[:100], weights=weights) for weights in (torch.ones(100), few)]
    with pytest.raises(ValueError, match="are worth between 50 and 100 events without weights, and one kl_weight"):
        settings.fit_many(small, samples)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (EVENTS[:100] / 0, "sample 1: events"),
        (EVENTS[:100, :1], "sample 1: events"),
        (pg.EventSample(EVENTS[:100], weights=torch.ones(100)), "1 of 2 samples have event weights"),
    ],
)
def test_all_samples_are_checked_before_the_work_on_the_first(small, second, message, monkeypatch):
    monkeypatch.setattr(calibrated.Search, "settings", lambda *args, **kwargs: pytest.fail("the work was begun"))
    with pytest.raises(ValueError, match=message):
        pg.SVI(**SVI, kl_weight="calibrated").fit_many(small, [EVENTS[:100], second])


def test_a_word_is_no_number_elsewhere():
    with pytest.raises(ValueError, match="kl_weight is 'tempered'; it must be positive and finite, or 'calibrated'"):
        pg.SVI(kl_weight="tempered")
    with pytest.raises(ValueError, match="kl_weight is 'calibrated', which SVI cannot find; it must be a number here"):
        _ = pg.SVI(kl_weight="calibrated").kl_factor
